"""Waiting for the end of jobs: however many requests wait, one poller a process asks Postgres."""

from __future__ import annotations

import logging
import threading
from time import monotonic, sleep
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import UnavailableError
from app.domain.lifecycle import TERMINAL
from app.persistence import job_lists
from app.persistence.sessions import Sessions, SingleStatements

log = logging.getLogger(__name__)

_FAST_S: Final = 0.004
_SLOW_S: Final = 0.1
_FAST_FOR_S: Final = 1.0


class Waits:
    """Lets at most ``places`` requests wait at once, so that those who do not wait find a thread."""

    def __init__(self, sessions: Sessions, *, places: int) -> None:
        self._sessions = SingleStatements(sessions)
        self._places = threading.BoundedSemaphore(places)
        self._lock = threading.Lock()
        self._waiting: dict[UUID, list[threading.Event]] = {}
        self._newest = 0.0
        self._poller: threading.Thread | None = None

    def wait(self, job_id: UUID, *, timeout_s: float) -> None:
        """Return when the job has ended or the time is over.

        Raises:
            UnavailableError: Every waiting place is taken; ``data['retry_after_s']`` says when to come back.
        """
        if not self._places.acquire(blocking=False):
            raise UnavailableError(
                "every waiting place is taken",
                code="service.too_many_waits",
                hint="Poll without 'wait', or come back after Retry-After.",
                data={"retry_after_s": 1},
            )
        ended = threading.Event()
        try:
            self._enter(job_id, ended)
            ended.wait(timeout_s)
        finally:
            self._leave(job_id, ended)
            self._places.release()

    def _enter(self, job_id: UUID, ended: threading.Event) -> None:
        with self._lock:
            self._waiting.setdefault(job_id, []).append(ended)
            self._newest = monotonic()
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="waits", daemon=True)
                self._poller.start()

    def _leave(self, job_id: UUID, ended: threading.Event) -> None:
        with self._lock:
            left = [event for event in self._waiting.get(job_id, []) if event is not ended]
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
                fast = monotonic() - self._newest < _FAST_FOR_S
            self._tell_ended(job_ids)
            sleep(_FAST_S if fast else _SLOW_S)

    def _tell_ended(self, job_ids: list[UUID]) -> None:
        try:
            with self._sessions.begin() as session:
                seen = job_lists.versions(session, job_ids)
        except SQLAlchemyError as error:
            # The waiters time out and answer with what they can read then; the poller must live on.
            log.warning("wait.poll_failed", extra={"error": str(error)})
            return
        with self._lock:
            for job_id in job_ids:
                if job_id not in seen or seen[job_id][0] in TERMINAL:
                    for event in self._waiting.get(job_id, []):
                        event.set()
