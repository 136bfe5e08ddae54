"""Waiting for the end of jobs: however many requests wait, one thread a process hears of ends and asks Postgres."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import UnavailableError
from app.domain.jobs import Job
from app.domain.ports import Ended
from app.persistence import job_lists, jobs
from app.persistence.sessions import Sessions, SingleStatements
from app.services.places import Places

log = logging.getLogger(__name__)

_SOON_S: Final = 1.0
_LOOK_SOON_S: Final = 0.02
_LOOK_S: Final = 0.1
"""How often is looked for ends nobody told of; the former while the newest wait is younger than ``_SOON_S``."""
_LINGER_S: Final = 10.0
"""The next wait hears at once of its end when it comes this soon after the last."""


class _Wait:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.job: Job | None = None


class Waits:
    """Lets requests wait for jobs, as far as there are ``places``."""

    def __init__(self, sessions: Sessions, places: Places, ended: Ended) -> None:
        self._sessions = SingleStatements(sessions)
        self._places = places
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting: dict[UUID, list[_Wait]] = {}
        self._newest = 0.0
        self._thread: threading.Thread | None = None

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
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="waits", daemon=True)
                self._thread.start()

    def _leave(self, job_id: UUID, wait: _Wait) -> None:
        with self._lock:
            left = [other for other in self._waiting.get(job_id, []) if other is not wait]
            if left:
                self._waiting[job_id] = left
            else:
                self._waiting.pop(job_id, None)

    def _listen(self) -> None:
        looked_at = 0.0
        while (age_s := self._age_s()) is not None:
            pace_s = _LOOK_SOON_S if age_s < _SOON_S else _LOOK_S
            heard = self._ended.hear(pace_s)
            with self._lock:
                waiting = list(self._waiting)
            if heard.isdisjoint(waiting) and monotonic() - looked_at < pace_s:
                continue
            looked_at = monotonic()
            if waiting:
                self._tell_ended(waiting)

    def _age_s(self) -> float | None:
        """Of the newest wait; ``None`` when there was none for long and this thread is to end."""
        with self._lock:
            age_s = monotonic() - self._newest
            if self._waiting or age_s < _LINGER_S:
                return age_s
            self._thread = None
            self._ended.close()
            return None

    def _tell_ended(self, job_ids: list[UUID]) -> None:
        try:
            with self._sessions.begin() as session:
                ended = job_lists.ended(session, job_ids)
        except SQLAlchemyError as error:
            # The waiters time out and answer with what they can read then; the thread must live on.
            log.warning("wait.poll_failed", extra={"error": str(error)})
            return
        with self._lock:
            for job in ended:
                for wait in self._waiting.get(job.id, []):
                    wait.job = job
                    wait.ended.set()
