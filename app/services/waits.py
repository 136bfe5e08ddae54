"""Waiting for the end of jobs: however many requests wait, one poller a process asks Postgres."""

from __future__ import annotations

import logging
import threading
from time import monotonic, sleep
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import UnavailableError
from app.domain.jobs import Job
from app.persistence import job_lists, jobs
from app.persistence.sessions import Sessions, SingleStatements
from app.services.places import Places

log = logging.getLogger(__name__)

_PACES_S: Final = ((0.05, 0.002), (1.0, 0.005))
"""While the newest wait is younger than the first, the poller sleeps the second."""
_SLOW_S: Final = 0.1


class _Wait:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.job: Job | None = None


class Waits:
    """Lets requests wait for jobs, as far as there are ``places``."""

    def __init__(self, sessions: Sessions, places: Places) -> None:
        self._sessions = SingleStatements(sessions)
        self._places = places
        self._lock = threading.Lock()
        self._waiting: dict[UUID, list[_Wait]] = {}
        self._newest = 0.0
        self._poller: threading.Thread | None = None

    def wait(self, job_id: UUID, *, timeout_s: float) -> Job | None:
        """The job as it ended; ``None`` when the time was over before.

        Raises:
            UnavailableError: Every waiting place is taken; ``data['retry_after_s']`` says when to come back.
        """
        wait = _Wait()
        with self._places.taken():
            try:
                self._enter(job_id, wait)
                wait.ended.wait(timeout_s)
            finally:
                self._leave(job_id, wait)
        return wait.job

    def end_or_now(self, job: Job, *, timeout_s: float) -> Job:
        """``job`` as it ended, or as it is when the time is over or every place is taken."""
        if job.is_terminal or timeout_s <= 0:
            return job
        try:
            ended = self.wait(job.id, timeout_s=timeout_s)
        except UnavailableError:
            return job
        if ended is not None:
            return ended
        with self._sessions.begin() as session:
            return jobs.get(session, job.tenant, job.id)

    def _enter(self, job_id: UUID, wait: _Wait) -> None:
        with self._lock:
            self._waiting.setdefault(job_id, []).append(wait)
            self._newest = monotonic()
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="waits", daemon=True)
                self._poller.start()

    def _leave(self, job_id: UUID, wait: _Wait) -> None:
        with self._lock:
            left = [other for other in self._waiting.get(job_id, []) if other is not wait]
            if left:
                self._waiting[job_id] = left
            else:
                self._waiting.pop(job_id, None)

    def _poll(self) -> None:
        while True:
            with self._lock:
                job_ids = list(self._waiting)
                if not job_ids:
                    self._poller = None
                    return
                age_s = monotonic() - self._newest
            sleep(next((pace_s for until_s, pace_s in _PACES_S if age_s < until_s), _SLOW_S))
            self._tell_ended(job_ids)

    def _tell_ended(self, job_ids: list[UUID]) -> None:
        try:
            with self._sessions.begin() as session:
                ended = job_lists.ended(session, job_ids)
        except SQLAlchemyError as error:
            # The waiters time out and answer with what they can read then; the poller must live on.
            log.warning("wait.poll_failed", extra={"error": str(error)})
            return
        with self._lock:
            for job in ended:
                for wait in self._waiting.get(job.id, []):
                    wait.job = job
                    wait.ended.set()
