"""The feed of events: pages by the tenant's sequence, and streams that end when their reader goes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.domain.jobs import Job, JobEvent
from app.domain.progress import Progress
from app.persistence import events
from app.persistence.sessions import Sessions
from app.services.places import Places

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.1
PROGRESS_EVERY_S: Final = 1.0
HEARTBEAT_S: Final = 15.0
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of a tenant: of one job or all, of some types or all."""

    tenant: str
    job_id: UUID | None = None
    types: tuple[str, ...] = ()


Item = JobEvent | Job | None
"""What a stream gives: an event, a running job whose progress moved, or nothing for a while."""


class Feed:
    """Reads events in their order. One poller a process looks for news, however many streams are open."""

    def __init__(self, sessions: Sessions, places: Places) -> None:
        self._sessions = sessions
        self._places = places
        self._news = threading.Condition()
        self._last: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._poller: threading.Thread | None = None

    def page(self, wanted: Wanted, *, after: int, limit: int) -> list[JobEvent]:
        """Events whose number in the tenant's sequence is above ``after``, in order."""
        with self._sessions.begin() as session:
            return events.after(session, wanted.tenant, after, job_id=wanted.job_id, types=wanted.types, limit=limit)

    def last(self, tenant: str) -> int:
        """The number of the tenant's newest event."""
        with self._sessions.begin() as session:
            return events.last_numbers(session, [tenant]).get(tenant, 0)

    def stream(self, wanted: Wanted, *, after: int) -> Generator[Item, None, None]:
        """Events from ``after`` on as they come, with progress at most once a second a job; ``None`` as a heartbeat.

        Raises:
            UnavailableError: Every place for requests that stay is taken.
        """
        self._places.take()
        return self._followed(wanted, after)

    def _followed(self, wanted: Wanted, after: int) -> Generator[Item, None, None]:
        self._enter(wanted.tenant)
        try:
            shown: dict[UUID, Progress] = {}
            progress_at = said_at = monotonic()
            while True:
                page = self.page(wanted, after=after, limit=_PAGE)
                items: Sequence[Item] = page
                if page:
                    after = page[-1].seq or after
                now = monotonic()
                if now - progress_at >= PROGRESS_EVERY_S:
                    items = [*page, *self._moved(wanted, shown)]
                    progress_at = now
                if not items and now - said_at >= HEARTBEAT_S:
                    items = [None]
                if items:
                    said_at = now
                yield from items
                if len(page) < _PAGE:
                    self._wait_for_news(wanted.tenant, after)
        finally:
            self._leave(wanted.tenant)
            self._places.leave()

    def _moved(self, wanted: Wanted, shown: dict[UUID, Progress]) -> list[Job]:
        with self._sessions.begin() as session:
            running = events.running_jobs(session, wanted.tenant, job_id=wanted.job_id)
        moved = []
        for job in running:
            if shown.get(job.id) != job.progress:
                shown[job.id] = job.progress
                moved.append(job)
        return moved

    def _wait_for_news(self, tenant: str, after: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._last.get(tenant, 0) > after, PROGRESS_EVERY_S)

    def _enter(self, tenant: str) -> None:
        with self._news:
            self._open[tenant] = self._open.get(tenant, 0) + 1
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="feed", daemon=True)
                self._poller.start()

    def _leave(self, tenant: str) -> None:
        with self._news:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    def _poll(self) -> None:
        while True:
            with self._news:
                tenants = list(self._open)
                if not tenants:
                    self._poller = None
                    return
            pace_s = LOOK_EVERY_S
            try:
                with self._sessions.begin() as session:
                    last = events.last_numbers(session, tenants)
            except SQLAlchemyError as error:
                log.warning("feed.poll_failed", extra={"error": str(error)})
                last, pace_s = {}, PROGRESS_EVERY_S
            with self._news:
                if any(self._last.get(tenant) != number for tenant, number in last.items()):
                    self._last |= last
                    self._news.notify_all()
                self._news.wait(pace_s)
