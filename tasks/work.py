"""The task a bell starts: claim the best of a queue, run it, and go on while it is cheap to."""

from __future__ import annotations

import logging
from itertools import count
from time import monotonic
from typing import Final

from celery import current_app
from celery.exceptions import Retry

from app.domain.errors import FenceLost, TransientError
from app.domain.jobs import Job
from app.services.runs import is_connection_lost
from tasks.base import JobFailed, JobTask
from tasks.process import process
from tasks.slot import Slot

log = logging.getLogger(__name__)

CHEAP_QUEUE: Final = "small"
CHEAP_AT_ONCE: Final = 50
KEEP_AFTER_S: Final = 0.1
GO_ON_S: Final = 1.0
OLDEST_EVERY: Final = 10
"""Every tenth claim takes the longest waiting, so that no priority class starves."""
_claims = count(1)


@current_app.task(name="haulier.work", base=JobTask, bind=True, shared=False)
def work(self: JobTask, queue_name: str) -> None:
    """Answer one bell of ``queue_name``; a bell that finds nothing to do returns at once."""
    with process().heart.slot() as slot:
        if queue_name == CHEAP_QUEUE:
            _work_cheap(self, slot)
        else:
            _work_one(self, slot)


def _claim(slot: Slot, most: int) -> list[Job]:
    try:
        return slot.runs.claim(slot.queue, slot.id, most=most, oldest=next(_claims) % OLDEST_EVERY == 0)
    except Exception as error:
        if not is_connection_lost(error):
            raise
        # If the claim was committed all the same, the heart finds a job that nobody here runs and hands it back.
        log.warning("claim.lost", extra={"queue": slot.queue, "error": str(error)})
        return []


def _work_one(task: JobTask, slot: Slot) -> None:
    for job in _claim(slot, 1):
        try:
            task.run_job(slot, job)
        finally:
            process().bell.ring(slot.queue)
            process().bell.ring_engine()


def _work_cheap(task: JobTask, slot: Slot) -> None:
    started = monotonic()
    while claimed := _claim(slot, CHEAP_AT_ONCE):
        _run_members(task, slot, claimed)
        if monotonic() - started > GO_ON_S:
            process().bell.ring(slot.queue)
            break
    process().bell.ring_engine()


def _run_members(task: JobTask, slot: Slot, claimed: list[Job]) -> None:
    """Run a claimed batch one by one; what 100 ms were not enough for goes back."""
    started = monotonic()
    for job in claimed:
        if monotonic() - started > KEEP_AFTER_S:
            _hand_back(slot, job)
            continue
        try:
            task.run_job(slot, job)
        except TransientError as error:
            try:
                task.retry(exc=error)
            except (Retry, JobFailed) as told:
                log.debug("job.put_off", extra={"job_id": str(job.id), "told": str(told)})
        except JobFailed as told:
            log.debug("job.gave_up", extra={"job_id": str(job.id), "told": str(told)})


def _hand_back(slot: Slot, job: Job) -> None:
    try:
        slot.runs.hand_back(job, "its batch took long enough")
    except FenceLost:
        log.info("job.fence_lost", extra={"job_id": str(job.id)})
