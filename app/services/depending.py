"""Jobs that wait for others: these are locked while the jobs are stored, and may be over or have failed already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError, Problem
from app.domain.jobs import Job, OnDependencyFailure, SubmitJob
from app.domain.lifecycle import TERMINAL, Event, JobState
from app.persistence import jobs, needs, new_jobs
from app.persistence.new_jobs import NewJob


@dataclass(frozen=True, slots=True)
class Wait:
    """How a request stands to the jobs that it depends on.

    Args:
        over: Each of them, and whether it is over.
        stopped: One of them did not complete, and the request says not to run then.
    """

    over: Mapping[UUID, bool]
    stopped: bool

    @property
    def needs_left(self) -> int:
        """What the job waits for; one that is to be stopped never becomes free."""
        return (sum(not is_over for is_over in self.over.values()) or int(self.stopped)) if self.over else 0


_FREE: Final = Wait({}, stopped=False)


def waits(session: Session, requests: Sequence[SubmitJob], *, at: str = "") -> list[Wait]:
    """How requests of one tenant stand to what they depend on; none of it ends before the transaction does.

    Args:
        at: Where they stand in what was sent, ``{}`` for their place.
    Raises:
        NotFoundError: The tenant has no such job.
    """
    needed = sorted({job_id for request in requests for job_id in request.depends_on})
    if not needed:
        return [_FREE] * len(requests)
    states = needs.lock(session, requests[0].tenant, needed)
    return [_wait(request, states, at.format(place)) for place, request in enumerate(requests)]


def _wait(request: SubmitJob, states: Mapping[UUID, JobState], at: str) -> Wait:
    for place, needed in enumerate(request.depends_on):
        if needed not in states:
            detail = f"there is no job {needed} to depend on"
            problem = Problem(f"{at}/depends_on/{place}", detail)
            raise NotFoundError(detail, code="job.not_found", problems=(problem,))
    over = {needed: states[needed] in TERMINAL for needed in request.depends_on}
    failed = any(over[needed] and states[needed] is not JobState.COMPLETED for needed in over)
    return Wait(over, failed and request.on_dependency_failure is not OnDependencyFailure.RUN)


def keep(session: Session, waiting: Iterable[tuple[UUID, Wait]]) -> None:
    """Store what new jobs wait for."""
    edges = [(job_id, needed, is_over) for job_id, wait in waiting for needed, is_over in wait.over.items()]
    if edges:
        needs.add(session, edges)


def stop(session: Session, tenant: str, job_id: UUID, policy: OnDependencyFailure) -> Job | None:
    """End a new job whose need had failed before, as if it had failed while the job waited."""
    if policy is OnDependencyFailure.FAIL:
        return jobs.move(session, tenant, job_id, Event.FAIL, actor="engine", changes={"error": needs.NEED_FAILED})
    changes, data = {"cancel_reason": "skipped"}, {"reason": "skipped"}
    return jobs.move(session, tenant, job_id, Event.CANCEL, actor="engine", changes=changes, data=data)


def add(session: Session, new: NewJob, *, room: int) -> Job:
    """Store a job and what it waits for; ``room`` as ``new_jobs.add_all`` has it.

    Raises:
        NotFoundError: The tenant has no job that it is to wait for.
    """
    [wait] = waits(session, [new.request])
    [job] = new_jobs.add_all(session, [waiting(new, wait)], room=room)
    keep(session, [(job.id, wait)])
    if wait.stopped:
        return stop(session, job.tenant, job.id, new.request.on_dependency_failure) or job
    return job


def waiting(new: NewJob, wait: Wait) -> NewJob:
    """``new`` as a job that waits so."""
    return replace(new, needs_left=wait.needs_left) if wait.needs_left else new
