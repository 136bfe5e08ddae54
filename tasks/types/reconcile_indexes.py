"""``reconcile_indexes``: a table has the indexes that its declaration wants, whatever became of who put them off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from app.dataplane import indexes
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.persistence import table_claims
from app.services import index_jobs

if TYPE_CHECKING:
    from tasks.context import RunContext


class ReconcileIndexes(JobConfig):
    """Which table."""

    table: str = Field(description="A declared table.")


def check(submission: Submission, config: ReconcileIndexes) -> None:
    """Refuse a table that is not there."""
    submission.table(config.table, pointer="/config/table")


def run(job: RunContext, config: ReconcileIndexes) -> Result:
    """Build what is missing or cannot be used, while others read and write.

    A table that a job is filling is left until that one is over, for another of these.
    """
    tenant, table = job.job.tenant, config.table
    with job.sessions.begin() as session:
        holder = table_claims.holder(session, tenant, table)
        if holder is not None:
            job.build_indexes_after(session, table, after=holder)
    if holder is not None:
        return Result(
            data={"table": table, "built": [], "filled_by": str(holder)},
            message=f"job {holder} is filling {table}; another of these waits for its end",
            outcome=Outcome.EMPTY,
        )
    built = indexes.build(job, tenant, table)
    with job.sessions.begin() as session:
        table_claims.release(session, tenant, table, by=job.id)
    return Result(
        data={"table": table, "built": built},
        message=f"built {len(built)} indexes of {table}" if built else f"{table} has all of its indexes",
        outcome=Outcome.SUCCESS if built else Outcome.EMPTY,
    )


JOB_TYPE = JobType(
    name=index_jobs.TYPE,
    config=ReconcileIndexes,
    run=run,
    check=check,
    retry=index_jobs.RETRY,
    summary="Build the indexes that a table's declaration wants and that are missing or invalid.",
)
