"""The task a bell starts: claim the best of a queue, run it, and go on while it is cheap to."""

from __future__ import annotations

import logging
from contextlib import closing
from itertools import count
from time import monotonic
from typing import Final

from celery import current_app

from app.domain.job_types import CHEAP_QUEUE
from app.domain.jobs import Job
from app.services.runs import is_connection_lost
from tasks.base import JobTask
from tasks.members import Ends, run_members
from tasks.process import process
from tasks.slot import Slot

log = logging.getLogger(__name__)

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
        oldest = next(_claims) % OLDEST_EVERY == 0
        claimed = slot.runs.claim(slot.queue, slot.id, most=most, oldest=oldest)
        # Others may have taken all of its class.
        return claimed or (slot.runs.claim(slot.queue, slot.id, most=most, oldest=False) if oldest else [])
    except Exception as error:
        if not is_connection_lost(error):
            raise
        # If the claim was committed all the same, the heart finds a job that nobody here runs and hands it back.
        log.warning("claim.lost", extra={"queue": slot.queue, "error": str(error)})
        return []


def _work_one(task: JobTask, slot: Slot) -> None:
    for job in _claim(slot, 1):
        try:
            task.run_job(slot, slot.hold(job))
        finally:
            process().bell.ring(slot.queue)
            process().bell.ring_engine()


def _work_cheap(task: JobTask, slot: Slot) -> None:
    started = monotonic()
    with closing(Ends(slot)) as ends:
        while claimed := _claim(slot, slot.portion.size):
            run_members(task, slot, claimed, ends)
            if monotonic() - started > GO_ON_S:
                process().bell.ring(slot.queue)
                break
        else:
            slot.portion.rest()
    process().bell.ring_engine()
