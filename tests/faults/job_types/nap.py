"""``nap``: a cheap job that takes a moment."""

from __future__ import annotations

from app.domain.job_types import JobConfig, JobType
from tasks.context import RunContext


class NapConfig(JobConfig):
    """How long."""

    seconds: float = 0.02


def run(job: RunContext, config: NapConfig) -> None:
    """Wait, and listen meanwhile."""
    job.wait(config.seconds)


JOB_TYPE = JobType(name="nap", config=NapConfig, run=run, queue="small", cheap=True)
