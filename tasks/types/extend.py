"""``extend``: adds the payloads it was given to its batch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.domain.job_types import JobConfig, JobContext, JobType, Result


class ExtendConfig(JobConfig):
    """Which payloads."""

    payloads: list[dict[str, Any]] = Field(
        min_length=1, max_length=10_000, description="Each as a batch takes it: type, config, and more if wanted."
    )


def run(job: JobContext, config: ExtendConfig) -> Result:
    """Hand them on; they are added when this job has succeeded."""
    job.extend(config.payloads)
    return Result(data={"added": len(config.payloads)})


JOB_TYPE = JobType(
    name="extend",
    config=ExtendConfig,
    run=run,
    queue="small",
    cheap=True,
    summary="Adds payloads to the batch that it is a payload of.",
)
