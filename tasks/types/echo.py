"""``echo``: answers what it was given; the smallest job there is."""

from __future__ import annotations

from typing import Any

from app.domain.job_types import JobConfig, JobContext, JobType, Result


class EchoConfig(JobConfig):
    """Anything."""

    value: Any = None


def run(_job: JobContext, config: EchoConfig) -> Result:
    """Give the value back."""
    return Result(data={"value": config.value})


JOB_TYPE = JobType(
    name="echo",
    config=EchoConfig,
    run=run,
    queue="small",
    cheap=True,
    summary="Answers with the value it was given.",
)
