"""The use cases of jobs: submit and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.domain.errors import ConflictError
from app.domain.families import Member
from app.domain.job_types import CHEAP_AT_ONCE, CHEAP_QUEUE, Registry, Submission
from app.domain.jobs import Job, JobEvent, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.pacing import AHEAD
from app.domain.ports import Bell
from app.domain.retry import RetryPolicy, policy_of
from app.persistence import events, job_lists, jobs, new_jobs
from app.persistence.job_lists import Filters
from app.persistence.new_jobs import NewJob
from app.persistence.sessions import Sessions, SingleStatements
from app.services import depending
from app.services.ids import new_id
from app.services.once import Submitted, once
from app.services.runs import is_connection_lost
from app.services.submissions import Checks, Form
from app.services.together import Together

_TOGETHER: Final = 100
"""Submits that travel in one statement at most."""


class Jobs:
    """The use cases of jobs.

    Args:
        queue_bound: Jobs that may stand admitted per queue and class.
        submission: What the job types' own checks may ask, for a tenant.
    Attributes:
        room: Places of a queue's class that submits fill by themselves; ``ahead``: those with jobs ahead of their turn.
    """

    def __init__(
        self,
        sessions: Sessions,
        bell: Bell,
        registry: Registry,
        *,
        queue_bound: int,
        submission: Callable[[str], Submission],
    ) -> None:
        self._sessions = sessions
        self._single = SingleStatements(sessions)
        self._bell = bell
        self._registry = registry
        self._checks = Checks(registry, submission)
        # Half of the bound: submits that race may each see the last place, and the engine fills the rest exactly.
        self.room = queue_bound // 2
        self.ahead = queue_bound * AHEAD
        self._store = Together(self._store_all, at_once=2, most=_TOGETHER, try_alone=_is_of_one)

    def submit(self, request: SubmitJob, *, idempotency_key: str | None = None) -> Submitted:
        """Accept a job; it starts when a worker is free.

        Args:
            idempotency_key: A second submit with the same key and the same request answers with the first one's job.
        Raises:
            InvalidRequestError: Unknown type, a config that does not fit it, or a key used for another request.
            ConflictError: A request with the same key is in flight.
        """
        checked = self.checked(request)
        if idempotency_key is None and not checked.depends_on:
            submitted = Submitted(self._store(self.new(checked)))
        else:
            with self._sessions.begin() as session:
                submitted = once(session, checked, idempotency_key, lambda: self._add(session, checked))
        ring(self._bell, submitted.job)
        return submitted

    def checked(self, request: SubmitJob, *, at: str = "") -> SubmitJob:
        """``request`` with its type's defaults; ``at`` is where it stands in what was sent.

        Raises:
            InvalidRequestError: Unknown type, or a config that does not fit it.
        """
        return self._checks.checked(request, at=at)

    def form(self, request: SubmitJob, *, at: str = "") -> Form:
        """What ``request`` and others that differ in their configs alone come to; ``at`` is where it stands.

        Raises:
            InvalidRequestError: Unknown type.
        """
        return self._checks.form(request, at=at)

    def config(self, form: Form, config: dict[str, Any], *, at: str = "") -> dict[str, Any]:
        """The config of a request of this form, as its job gets it; ``at`` is where the request stands.

        Raises:
            InvalidRequestError: It does not fit the type.
        """
        return self._checks.config(form, config, at=at)

    def new(self, request: SubmitJob) -> NewJob:
        """A checked request as a job that is ready to be stored."""
        job_type = self._registry.get(request.type)
        return new_jobs.new_job(
            request,
            job_id=new_id(),
            queue=job_type.queue_for(request),
            retry=policy_of(request.retry, job_type.retry),
        )

    def prepared(self, request: SubmitJob, *, queue: str, name: str | None = None) -> NewJob:
        """A job that no job type runs: the parent of others."""
        retry = policy_of(request.retry, RetryPolicy())
        return new_jobs.new_job(request, job_id=new_id(), queue=queue, retry=retry, name=name)

    def member(self, request: SubmitJob, *, at: str, templates: bool = False) -> Member:
        """A child to be made, checked like any job; ``at`` is where the request for it stands.

        Args:
            templates: Whether its config may hold templates, to be filled in before it begins.
        Raises:
            InvalidRequestError: Unknown type, or a config that does not fit it.
        """
        checked = self._checks.checked(request, at=at, templates=templates)
        job_type = self._registry.get(checked.type)
        retry = policy_of(checked.retry, job_type.retry)
        return Member(
            type=checked.type,
            config=checked.config,
            queue=job_type.queue_for(checked),
            retry=retry,
            attempt_timeout_s=checked.attempt_timeout_s,
            concurrency_key=checked.concurrency_key,
            max_concurrency=checked.max_concurrency,
            resources=checked.resources,
        )

    def _store_all(self, new: Sequence[NewJob]) -> list[Job]:
        with self._single.begin() as session:
            return new_jobs.add_all(session, new, room=self.room)

    def _add(self, session: Session, request: SubmitJob) -> Job:
        return depending.add(session, self.new(request), room=self.room)

    def get(self, tenant: str, job_id: UUID) -> Job:
        """One job; NotFoundError when the tenant has none of this id."""
        with self._single.begin() as session:
            return jobs.get(session, tenant, job_id)

    def batch_get(self, tenant: str, job_ids: Sequence[UUID]) -> list[Job | None]:
        """The jobs in the order asked; ``None`` where the tenant has none of the id."""
        with self._sessions.begin() as session:
            found = job_lists.get_many(session, tenant, job_ids)
        return [found.get(job_id) for job_id in job_ids]

    def find(self, tenant: str, filters: Filters, *, limit: int, before: UUID | None = None) -> list[Job]:
        """The tenant's jobs, newest first."""
        with self._sessions.begin() as session:
            return job_lists.find(session, tenant, filters, limit=limit, before=before)

    def events(self, tenant: str, job_id: UUID, *, after: int, limit: int, errors: bool = False) -> list[JobEvent]:
        """A job's audit trail, or only its errors, in order."""
        with self._sessions.begin() as session:
            jobs.get(session, tenant, job_id)
            return events.of_job(session, tenant, job_id, after=after, limit=limit, errors=errors)

    def last_errors(self, tenant: str, job_ids: Sequence[UUID], *, limit: int = 20) -> dict[UUID, list[str]]:
        """The messages of each job's last failures, newest last."""
        with self._sessions.begin() as session:
            return events.last_errors(session, tenant, job_ids, limit=limit)

    def require(self, tenant: str, job_id: UUID, states: frozenset[JobState]) -> Job:
        """The job if it is in one of ``states``.

        Raises:
            ConflictError: It is in another.
            NotFoundError: The tenant has none of this id.
        """
        job = self.get(tenant, job_id)
        if job.state not in states:
            wanted = " or ".join(sorted(states))
            raise ConflictError(
                f"job {job_id} is {job.state}, this needs {wanted}", code="job.wrong_state", data={"state": job.state}
            )
        return job


def ring(bell: Bell, job: Job) -> None:
    """Have a worker take a job that is admitted, or the engine look at one that is due."""
    if job.state is JobState.QUEUED:
        bell.ring(job.queue)
    elif job.run_after is None:
        bell.ring_engine()


def ring_all(bell: Bell, queued: Mapping[str, int]) -> None:
    """Have workers take jobs that are admitted, so many in each queue, and the engine look at others."""
    for queue, count in queued.items():
        bell.ring(queue, -(-count // CHEAP_AT_ONCE) if queue == CHEAP_QUEUE else count)
    bell.ring_engine()


def _is_of_one(error: Exception) -> bool:
    """Whether one of several jobs could not be stored, rather than none."""
    return isinstance(error, DBAPIError) and not is_connection_lost(error)
