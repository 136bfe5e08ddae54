"""The use cases of families: batches of payloads, their growth, and their children."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.families import Counts, Kind, OnFailure
from app.domain.jobs import Job, Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import Bell
from app.domain.retry import RetryPolicy
from app.persistence import families, new_jobs
from app.persistence.families import PARENT_QUEUE
from app.persistence.new_jobs import Child
from app.persistence.sessions import Sessions
from app.services.jobs import Jobs

MAX_PAYLOADS: Final = 1_000_000
_AT_ONCE: Final = 1000
_NO_RETRY: Final = RetryPolicy(max_attempts=1)


@dataclass(frozen=True, slots=True)
class Payload:
    """One item of a batch: a job of its own, but for its place."""

    type: str
    config: dict[str, Any]
    retry: RetryPolicy | None = None
    attempt_timeout_s: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class SubmitBatch:
    """A request for a batch, checked as far as its shape goes.

    Args:
        payloads: Read once, as they are stored.
        max_concurrency: Payloads at work at once at most.
    """

    tenant: str
    payloads: Iterable[Payload]
    created_by: str
    max_concurrency: int = 5
    on_failure: OnFailure = OnFailure.CONTINUE
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    timeout_s: float | None = None
    labels: dict[str, str] = field(default_factory=dict)


class Families:
    """The use cases of families."""

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs

    def create_batch(self, batch: SubmitBatch) -> Job:
        """Store a batch and all its payloads, or none.

        Raises:
            InvalidRequestError: A payload does not fit its type; the pointer names it.
        """
        parent = self._jobs.prepared(
            SubmitJob(
                tenant=batch.tenant,
                type=Kind.BATCH,
                config={"max_concurrency": batch.max_concurrency, "on_failure": batch.on_failure},
                created_by=batch.created_by,
                priority=batch.priority,
                run_after=batch.run_after,
                timeout_s=batch.timeout_s,
                labels=batch.labels,
                retry=_NO_RETRY,
            ),
            queue=PARENT_QUEUE,
        )
        with self._sessions.begin() as session:
            [job] = new_jobs.add_all(session, [parent], room=0)
            total = self._add_payloads(session, job, batch.payloads, first=0)
            families.add(
                session,
                batch.tenant,
                job.id,
                Kind.BATCH,
                max_concurrency=batch.max_concurrency,
                on_failure=batch.on_failure,
                total=total,
            )
        self._bell.ring_engine()
        return job

    def extend(self, tenant: str, parent_id: UUID, payloads: Sequence[Payload]) -> int:
        """Add payloads to a batch that is not over; how many it has now.

        Raises:
            ConflictError: It is over, or takes no payloads.
        """
        with self._sessions.begin() as session:
            parent = self._locked(session, tenant, parent_id)
            if parent.is_terminal or parent.type != Kind.BATCH:
                raise ConflictError(
                    f"payloads can be added to a batch that is not over; job {parent_id} is a {parent.type}, "
                    f"{parent.state}",
                    code="batch.not_growing",
                    data={"state": parent.state},
                )
            first = families.grow(session, parent_id, len(payloads))
            self._add_payloads(session, parent, payloads, first=first)
            families.touch(session, parent)
        self._bell.ring_engine()
        return first + len(payloads)

    def counts(self, tenant: str, parent_id: UUID) -> Counts:
        """How many children of a job stand where; a job that is no parent has none."""
        self._jobs.get(tenant, parent_id)
        with self._sessions.begin() as session:
            return families.counts(session, tenant, parent_id) or Counts(0, 0, 0, 0, 0)

    def children(
        self, tenant: str, parent_id: UUID, *, after: int, limit: int, states: tuple[JobState, ...] = ()
    ) -> list[Job]:
        """The children in their order, from place ``after`` (exclusive) on."""
        self._jobs.get(tenant, parent_id)
        with self._sessions.begin() as session:
            return families.children(session, tenant, parent_id, after=after, limit=limit, states=states)

    @staticmethod
    def _locked(session: Session, tenant: str, parent_id: UUID) -> Job:
        parent = families.lock(session, parent_id)
        if parent is None or parent.tenant != tenant:
            raise NotFoundError(f"there is no job {parent_id}", code="job.not_found")
        return parent

    def _add_payloads(self, session: Session, parent: Job, payloads: Iterable[Payload], *, first: int) -> int:
        places = iter(enumerate(payloads, start=first))
        stored = 0
        while chunk := list(islice(places, _AT_ONCE)):
            if chunk[-1][0] >= MAX_PAYLOADS:
                raise InvalidRequestError(
                    f"a batch holds {MAX_PAYLOADS:,} payloads at most",
                    problems=(Problem("/payloads", f"expected at most {MAX_PAYLOADS} items"),),
                )
            new_jobs.insert(session, list(self._children(parent, chunk, first=first)))
            stored += len(chunk)
        return stored

    def _children(self, parent: Job, chunk: Sequence[tuple[int, Payload]], *, first: int) -> Iterator[new_jobs.NewJob]:
        for place, payload in chunk:
            request = SubmitJob(
                tenant=parent.tenant,
                type=payload.type,
                config=payload.config,
                created_by=parent.created_by,
                origin=parent.origin,
                priority=parent.priority,
                retry=payload.retry,
                attempt_timeout_s=payload.attempt_timeout_s,
            )
            yield self._jobs.prepared_child(
                request, Child(parent.id, place, payload.name), at=f"/payloads/{place - first}"
            )
