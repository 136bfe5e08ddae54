"""Extension: what a payload gave to its batch becomes payloads of it, before the giver's end is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.jobs import Job, SubmitJob
from app.domain.retry import RetryChanges, RetryPolicy
from app.persistence import families, new_jobs
from app.persistence.new_jobs import Child, NewJob
from app.services.jobs import new_id

AT_ONCE: Final = 1000


def extend(session: Session, batch: Job, giver: UUID) -> None:
    """Add what a completed payload gave; a batch that is over takes nothing more.

    It was checked when it was given, and is added exactly once: in the transaction that numbers the giver's end.
    """
    if batch.is_terminal:
        return
    payloads = families.extension(session, giver)
    first = families.grow(session, batch.id, len(payloads))
    for start in range(0, len(payloads), AT_ONCE):
        chunk = payloads[start : start + AT_ONCE]
        new = [_child(batch, giver, payload, first + start + place) for place, payload in enumerate(chunk)]
        new_jobs.insert(session, [job.text for job in new])


def _child(batch: Job, giver: UUID, payload: Mapping[str, Any], place: int) -> NewJob:
    changes = RetryChanges.from_json(payload["retry_changes"]).over(RetryChanges.from_json(batch.config["retry"]))
    retry = changes.applied_to(RetryPolicy.from_json(payload["retry"]))
    request = SubmitJob(
        tenant=batch.tenant,
        type=payload["type"],
        config=payload["config"],
        created_by=f"{families.GIVER}{giver}",
        origin=batch.origin,
        priority=batch.priority,
        attempt_timeout_s=payload["attempt_timeout_s"],
    )
    child = Child(batch.id, place, payload["name"])
    return new_jobs.new_job(request, job_id=new_id(), queue=payload["queue"], retry=retry, child=child)
