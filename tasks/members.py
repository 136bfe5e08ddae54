"""A claimed batch of cheap jobs: its members run one by one, and their ends are written together."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Final

from celery.exceptions import Retry
from sqlalchemy.exc import DBAPIError

from app.domain import portions
from app.domain.errors import TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job
from tasks.base import Complete, JobFailed, JobTask
from tasks.context import RunContext
from tasks.process import process
from tasks.slot import Slot

log = logging.getLogger(__name__)

KEEP_FOR_S: Final = 0.1
"""What a batch has not begun after this time goes back, to be run elsewhere."""
LOOK_EVERY_S: Final = 0.02
FLUSH_AFTER_S: Final = 0.02
FLUSH_AT: Final = portions.MOST


class Ends:
    """Completions of one slot that wait to be written in one statement, 20 ms at most however long the next job takes.

    Their jobs stay held until then: a worker that is killed before runs them again, which cheap types allow.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._waiting: list[tuple[Job, Result]] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, job: Job, result: Result) -> None:
        """Take a job's result, to be written soon."""
        with self._changed:
            self._waiting.append((job, result))
            count = len(self._waiting)
            if count == 1:
                self._begin_to_wait()
        if count >= FLUSH_AT:
            self.flush()

    def _begin_to_wait(self) -> None:
        self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_in_time, name="ends", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Write what waits now."""
        with self._writing:
            with self._changed:
                waiting, self._waiting = self._waiting, []
            try:
                if waiting:
                    self._write(waiting)
            finally:
                for job, _ in waiting:
                    self._slot.let_go(job)

    def close(self) -> None:
        """Write what waits, and end the thread; nothing is added afterwards."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.flush()

    def _write(self, ended: list[tuple[Job, Result]]) -> None:
        try:
            lost = self._slot.runs.complete_all(ended)
        except DBAPIError:
            if len(ended) == 1:
                # The heart finds a job that nobody runs, and gives it back.
                log.exception("job.end_lost", extra={"job_id": str(ended[0][0].id)})
                return
            for one in ended:
                self._write([one])
            return
        process().bell.tell_ended(job.id for job, _ in ended)
        for job in lost:
            log.info("job.fence_lost", extra={"job_id": str(job.id)})
        lost_ids = {job.id for job in lost}
        # One line for all: a line each would cost as much as a third of what else is done for a job here.
        log.info("jobs.completed", extra={"job_ids": [str(job.id) for job, _ in ended if job.id not in lost_ids]})

    def _flush_in_time(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._changed.wait_for(lambda: not self._waiting or self._closed, FLUSH_AFTER_S)
            self.flush()


def run_members(task: JobTask, slot: Slot, claimed: list[Job], ends: Ends) -> None:
    """Run a claimed batch, whose ends are written when this returns; what its time was not enough for goes back."""
    contexts = [slot.hold(job) for job in claimed]
    begun = 0
    started = looked_at = monotonic()
    try:
        for context in contexts:
            now = monotonic()
            if now - started > KEEP_FOR_S:
                _hand_back(slot, claimed[begun:])
                break
            begun += 1
            if now - looked_at > LOOK_EVERY_S:
                process().heart.look(slot)
                looked_at = now
            _run_member(task, slot, context, ends.add if len(claimed) > 1 else None)
        if begun:
            slot.portion.ran(len(claimed), begun=begun, took_s=monotonic() - started)
    finally:
        ends.flush()
        for job in claimed:
            slot.let_go(job)


def _run_member(task: JobTask, slot: Slot, context: RunContext, complete: Complete | None) -> None:
    try:
        task.run_job(slot, context, complete=complete)
    except TransientError as error:
        try:
            task.retry(exc=error)
        except (Retry, JobFailed) as told:
            log.debug("job.put_off", extra={"job_id": str(context.id), "told": str(told)})
    except JobFailed as told:
        log.debug("job.gave_up", extra={"job_id": str(context.id), "told": str(told)})


def _hand_back(slot: Slot, rest: list[Job]) -> None:
    for job in slot.runs.hand_back_all(rest, "its batch took long enough"):
        log.info("job.fence_lost", extra={"job_id": str(job.id)})
