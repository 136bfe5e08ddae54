"""``rebuild_mirror``: a table's index in the search server anew, proved to hold the same, and then put in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.retry import RetryPolicy
from tasks.mirroring import check_mirror, mirror_whole

if TYPE_CHECKING:
    from tasks.context import RunContext


class RebuildMirror(JobConfig):
    """Which table."""

    table: str = Field(description="A declared table; one without a mirror gets one.")


def check(submission: Submission, config: RebuildMirror) -> None:
    """Refuse a table that is not there, and where there is no server."""
    submission.table(config.table, pointer="/config/table")
    check_mirror(submission, pointer="/type")


def run(job: RunContext, config: RebuildMirror) -> Result:
    """Build the index; a killed job goes on behind its last page."""
    return mirror_whole(job, config.table)


JOB_TYPE = JobType(
    name="rebuild_mirror",
    config=RebuildMirror,
    run=run,
    check=check,
    retry=RetryPolicy(maximum_attempts=10, maximum_interval_s=600.0),
    summary="Build a table's index in the search server anew, and switch to it.",
)
