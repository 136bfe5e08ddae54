"""Jobs of the system that build what a table lacks of its indexes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.job_types import OWN_PROCESS_QUEUE
from app.domain.jobs import OnDependencyFailure, Origin, SubmitJob
from app.domain.retry import RetryPolicy
from app.persistence import new_jobs
from app.services import depending
from app.services.ids import new_id

TYPE: Final = "reconcile_indexes"
RETRY: Final = RetryPolicy(maximum_attempts=10, maximum_interval_s=600.0)


def build_soon(session: Session, tenant: str, table: str, *, after: UUID | None = None) -> None:
    """Have a job build them; it is stored with the session's transaction, and the engine sees it then.

    Args:
        after: A job that is to be over before, in whatever way.
    """
    request = SubmitJob(
        tenant,
        TYPE,
        {"table": table},
        created_by="system",
        origin=Origin.SYSTEM,
        depends_on=() if after is None else (after,),
        on_dependency_failure=OnDependencyFailure.RUN,
    )
    new = new_jobs.new_job(request, job_id=new_id(), queue=OWN_PROCESS_QUEUE, retry=RETRY)
    depending.add(session, new, room=0)
