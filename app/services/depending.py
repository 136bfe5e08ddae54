"""Jobs that wait for others: these are locked while the job is stored, and may be over or have failed already."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError
from app.domain.jobs import Job, OnDependencyFailure
from app.domain.lifecycle import TERMINAL, Event, JobState
from app.persistence import jobs, needs, new_jobs
from app.persistence.new_jobs import NewJob


def add(session: Session, new: NewJob, *, room: int) -> Job:
    """Store a job and what it waits for; ``room`` as ``new_jobs.add_all`` has it.

    Raises:
        NotFoundError: The tenant has no job that it is to wait for.
    """
    request = new.request
    if not request.depends_on:
        return new_jobs.add_all(session, [new], room=room)[0]
    states = needs.lock(session, request.tenant, request.depends_on)
    for needed in request.depends_on:
        if needed not in states:
            raise NotFoundError(f"there is no job {needed} to depend on", code="job.not_found")
    left = sum(state not in TERMINAL for state in states.values())
    failed = any(state in TERMINAL and state is not JobState.COMPLETED for state in states.values())
    stopped = failed and request.on_dependency_failure is not OnDependencyFailure.RUN
    [job] = new_jobs.add_all(session, [new_jobs.waiting(new, left or int(stopped))], room=room)
    needs.add(session, [(job.id, needed, state in TERMINAL) for needed, state in states.items()])
    return _stopped_by_need(session, job, request.on_dependency_failure) if stopped else job


def _stopped_by_need(session: Session, job: Job, policy: OnDependencyFailure) -> Job:
    """A job whose need had failed before it was submitted ends as if it had failed while it waited."""
    if policy is OnDependencyFailure.FAIL:
        changes: dict[str, Any] = {"error": needs.NEED_FAILED}
        moved = jobs.move(session, job.tenant, job.id, Event.FAIL, actor="engine", changes=changes)
    else:
        changes, data = {"cancel_reason": "skipped"}, {"reason": "skipped"}
        moved = jobs.move(session, job.tenant, job.id, Event.CANCEL, actor="engine", changes=changes, data=data)
    return moved or job
