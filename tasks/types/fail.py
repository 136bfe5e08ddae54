"""``fail``: fails as asked, for trying out retries and alerts."""

from __future__ import annotations

from pydantic import Field

from app.domain.errors import JobError, TransientError
from app.domain.job_types import JobConfig, JobType, Result
from tasks.context import RunContext


class FailConfig(JobConfig):
    """How."""

    message: str = "failed as asked"
    transient: bool = True
    until_attempt: int | None = Field(None, ge=1, description="Succeeds from this attempt on; null fails always.")


def run(job: RunContext, config: FailConfig) -> Result:
    """Raise, or succeed from ``until_attempt`` on."""
    if config.until_attempt is not None and job.job.attempts >= config.until_attempt:
        return Result(data={"attempt": job.job.attempts})
    raise (TransientError if config.transient else JobError)(config.message)


JOB_TYPE = JobType(
    name="fail", config=FailConfig, run=run, queue="small", cheap=True, summary="Fails, to try out what follows."
)
