"""Makes what tests need, as short as it can be said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from app.domain.job_types import Registry, Submission, discover
from app.domain.jobs import Job, Origin, Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.retry import RetryPolicy
from app.persistence import new_jobs, workers
from app.persistence.sessions import Sessions
from app.services.clones import Clones
from app.services.control import Control
from app.services.families import Families
from app.services.jobs import Jobs
from app.services.pipelines import Pipelines
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from config.settings import Settings

T = TypeVar("T")
NO_POLICY = RetryPolicy()


WEEKDAYS_9_TO_17: dict[str, Any] = {
    "year": "*",
    "month": "*",
    "dayOfMonth": "*",
    "dayOfWeek": {"start": "MONDAY", "end": "FRIDAY"},
    "hour": {"start": 9, "end": 17},
    "minute": "0",
    "comment": "Run every weekday from 9am to 5pm at the start of every hour",
}
"""The calendar of document 003."""


class RecordingBell:
    """A bell that remembers its rings."""

    def __init__(self) -> None:
        self.rings: list[str] = []
        self.ended: set[UUID] = set()

    def ring(self, queue: str, times: int = 1) -> None:
        self.rings += [queue] * times

    def ring_engine(self) -> None:
        self.rings.append("engine")

    def tell_ended(self, job_ids: Iterable[UUID]) -> None:
        self.ended = {*self.ended, *(UUID(str(job_id)) for job_id in job_ids)}


def registry() -> Registry:
    return discover("tasks.types")


def a_service(
    sessions: Sessions, *, queue_bound: int = 100, bell: RecordingBell | None = None, settings: Settings | None = None
) -> Jobs:
    submission = _submission(sessions, settings or Settings())
    return Jobs(sessions, bell or RecordingBell(), registry(), queue_bound=queue_bound, submission=submission)


def a_control(sessions: Sessions, *, bell: RecordingBell | None = None) -> Control:
    return Control(sessions, bell or RecordingBell())


def a_cloner(sessions: Sessions) -> Clones:
    bell, jobs = RecordingBell(), a_service(sessions)
    return Clones(jobs, Families(sessions, bell, jobs), Pipelines(sessions, bell, jobs))


def _submission(sessions: Sessions, settings: Settings) -> Callable[[str], Submission]:
    return lambda tenant: TenantSubmission(tenant, settings=settings, sessions=sessions, tables=Tables(sessions))


def a_request(**changes: Any) -> SubmitJob:
    return SubmitJob(**{"tenant": "default", "type": "echo", "config": {}, "created_by": "test", **changes})


def a_slot(sessions: Sessions, queue: str = "small", *, lease_s: float = 60.0) -> UUID:
    slot = workers.Slot(uuid4(), queue, "host", "worker", 1, 1)
    with sessions.begin() as session:
        workers.register(session, slot, lease_s=lease_s)
    return slot.id


def stored(session: Session, request: SubmitJob, *, queue: str = "data", retry: RetryPolicy = NO_POLICY) -> Job:
    """A job that is in the database past every check."""
    new = new_jobs.new_job(request, job_id=uuid4(), queue=queue, retry=retry)
    return new_jobs.add_all(session, [new], room=10**6)[0]


def a_job(**changes: Any) -> Job:
    """A job that no database knows."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    values: dict[str, Any] = {
        "id": uuid4(),
        "number": 1,
        "tenant": "default",
        "type": "insert_csv_file",
        "queue": "data",
        "state": JobState.QUEUED,
        "priority": Priority.NORMAL,
        "config": {},
        "retry": RetryPolicy(),
        "origin": Origin.CONNECTRA,
        "created_by": "test",
        "created_at": now,
        "updated_at": now,
    }
    return Job(**{**values, **changes})


def in_threads(count: int, work: Callable[[], T]) -> list[T]:
    """What ``count`` threads that start together answer."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(count)]]
