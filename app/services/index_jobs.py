"""Jobs of the system that build what a table lacks of its indexes."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from app.domain.job_types import OWN_PROCESS_QUEUE
from app.domain.jobs import Origin, SubmitJob
from app.domain.retry import RetryPolicy
from app.persistence import new_jobs
from app.services.ids import uuid7

TYPE: Final = "reconcile_indexes"
RETRY: Final = RetryPolicy(maximum_attempts=10, maximum_interval_s=600.0)


def build_soon(session: Session, tenant: str, table: str) -> None:
    """Have a job build them; it is stored with the session's transaction, and the engine sees it then."""
    request = SubmitJob(tenant, TYPE, {"table": table}, created_by="system", origin=Origin.SYSTEM)
    new = new_jobs.new_job(request, job_id=uuid7(), queue=OWN_PROCESS_QUEUE, retry=RETRY)
    new_jobs.add_all(session, [new], room=0)
