"""Delivering what batches came to: a job made with the batch waits for its end and takes its results to a sink."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.errors import InvalidRequestError
from app.domain.families import Member
from app.domain.jobs import Job, OnDependencyFailure, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.retry import RetryPolicy
from app.domain.sinks import DELIVER_RESULTS
from app.persistence import jobs, new_jobs, results
from app.services import depending
from app.services.ids import new_id
from app.services.jobs import Jobs

_AT: Final = "/config/sink"


def member(all_jobs: Jobs, tenant: str, sink: dict[str, Any], *, created_by: str, at: str) -> Member:
    """The job to be made with a batch, but for whose results it delivers.

    Args:
        at: Where ``sink`` stands in what was sent.
    Raises:
        InvalidRequestError: There is no such sink, or it does not take results so.
    """
    request = SubmitJob(tenant, DELIVER_RESULTS, {"job": str(new_id()), "sink": sink}, created_by)
    try:
        return all_jobs.member(request, at="")
    except InvalidRequestError as error:
        faults = tuple(replace(fault, pointer=at + fault.pointer.removeprefix(_AT)) for fault in error.problems)
        raise InvalidRequestError(error.detail, code=error.code, hint=error.hint, problems=faults) from None


def begin(session: Session, batch: Job, delivery: Member) -> None:
    """Have the results of a batch that is being stored delivered when it is over, in whatever way."""
    config = {**delivery.config, "job": str(batch.id)}
    _add(session, batch, config, queue=delivery.queue, retry=delivery.retry, after=(batch.id,))


def again(session: Session, batch: Job) -> None:
    """Have the results of a batch that was opened again delivered at its next end.

    By the job that waits for it still, if there is one. Otherwise by another, behind the last: one that was at work
    with what the batch had come to before would write over what it comes to now.
    """
    made = results.delivery_ids(session, batch.tenant, batch.id, lock=True)
    if not made:
        return
    last = jobs.get(session, batch.tenant, made[-1])
    if last.state is not JobState.BLOCKED:
        _add(session, batch, last.config, queue=last.queue, retry=last.retry, after=(batch.id, last.id))


def _add(
    session: Session,
    batch: Job,
    config: dict[str, Any],
    *,
    queue: str,
    retry: RetryPolicy,
    after: tuple[UUID, ...],
) -> None:
    request = SubmitJob(
        batch.tenant,
        DELIVER_RESULTS,
        config,
        created_by=batch.created_by,
        origin=batch.origin,
        priority=batch.priority,
        labels=batch.labels,
        depends_on=after,
        on_dependency_failure=OnDependencyFailure.RUN,
    )
    new = new_jobs.new_job(request, job_id=new_id(), queue=queue, retry=retry)
    results.add_delivery(session, batch.id, depending.add(session, new, room=0).id)
