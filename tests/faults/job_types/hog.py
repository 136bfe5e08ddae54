"""``hog``: takes memory and keeps it for a while."""

from __future__ import annotations

from app.domain.job_types import JobConfig, JobType
from tasks.context import RunContext


class HogConfig(JobConfig):
    """How much, and for how long."""

    memory_mb: int
    seconds: float = 0.0


def run(job: RunContext, config: HogConfig) -> None:
    """Fill memory a mebibyte at a time."""
    held = [bytearray(2**20) for _ in range(config.memory_mb)]
    job.wait(config.seconds)
    held.clear()


JOB_TYPE = JobType(name="hog", config=HogConfig, run=run)
