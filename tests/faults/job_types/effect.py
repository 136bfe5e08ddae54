"""``effect``: writes one row a step, each in a transaction that stays open for a while; steps are counted exactly."""

from __future__ import annotations

import time

from sqlalchemy import text

from app.domain.job_types import JobConfig, JobType, Result
from app.domain.retry import RetryPolicy
from app.persistence import jobs
from tasks.context import RunContext


class EffectConfig(JobConfig):
    """How many steps, and how long each transaction stays open."""

    steps: int = 5
    step_s: float = 0.2


def run(job: RunContext, config: EffectConfig) -> Result:
    """Do the steps that no earlier run has committed."""
    first = int((job.job.checkpoint or {}).get("step", 0))
    for step in range(first, config.steps):
        job.check()
        with job.sessions.begin() as session:
            session.execute(
                text("INSERT INTO effects (job_id, step, fence) VALUES (:job_id, :step, :fence)"),
                {"job_id": job.id, "step": step, "fence": job.job.fence},
            )
            time.sleep(config.step_s)
            job.heed(jobs.advance(session, job.job, rows=1, rows_total=config.steps, checkpoint={"step": step + 1}))
    return Result(data={"steps": config.steps})


JOB_TYPE = JobType(
    name="effect", config=EffectConfig, run=run, retry=RetryPolicy(maximum_attempts=3, initial_interval_s=0.2)
)
