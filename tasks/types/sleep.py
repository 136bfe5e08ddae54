"""``sleep``: takes its time, with progress, and can be stopped at any moment."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from app.domain.job_types import JobConfig, JobType, Result
from tasks.context import RunContext

_STEP_S: Final = 0.2


class SleepConfig(JobConfig):
    """How long."""

    seconds: float = Field(1.0, ge=0, le=86_400)


def run(job: RunContext, config: SleepConfig) -> Result:
    """Sleep in steps; a run after a lost worker goes on where the checkpoint is."""
    steps = max(1, round(config.seconds / _STEP_S))
    first = int((job.job.checkpoint or {}).get("step", 0))
    for step in range(first, steps):
        job.wait(config.seconds / steps)
        job.progress(step + 1, steps)
        if step % 5 == 4:
            job.checkpoint({"step": step + 1})
    return Result(data={"slept_s": config.seconds})


JOB_TYPE = JobType(
    name="sleep", config=SleepConfig, run=run, queue="data", summary="Sleeps for some seconds, reporting progress."
)
