"""``revert_job``: the rows that a revertible job wrote become again what they were before."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import Field

from app.dataplane.reverting import revert
from app.domain.errors import JobError
from app.domain.job_types import JobConfig, JobType, Result
from app.persistence import before_images, jobs
from app.services.tables import Tables

if TYPE_CHECKING:
    from tasks.context import RunContext


class RevertJob(JobConfig):
    """Which job."""

    job: UUID = Field(description="A job that is over and was revertible.", strict=False)


def run(job: RunContext, config: RevertJob) -> Result:
    """Give the rows back; a killed revert goes on behind its last batch."""
    with job.sessions.begin() as session:
        source = jobs.get(session, job.job.tenant, config.job)
        names = before_images.tables(session, source.id)
    if not source.is_terminal:
        raise JobError(
            f"job {source.id} is {source.state}; only a job that is over can be reverted", code="revert.early"
        )
    tables = Tables(job.sessions)
    written = [tables.get(source.tenant, name) for name in names]
    for table in written:
        tables.will_write(source.tenant, table, job.id, whole=True)
    return revert(job, source, written)


JOB_TYPE = JobType(
    name="revert_job",
    config=RevertJob,
    run=run,
    summary="Take back what a revertible job wrote, but for rows that others changed since.",
)
