"""``starve``: lets no other thread of its process run while its transaction is open; a second run does not."""

from __future__ import annotations

import ctypes

from sqlalchemy import text

from app.domain.job_types import JobConfig, JobType
from app.persistence import jobs
from tasks.context import RunContext


class StarveConfig(JobConfig):
    """How long."""

    seconds: float = 6.0


def run(job: RunContext, config: StarveConfig) -> None:
    """Write one effect, the first time too late."""
    with job.sessions.begin() as session:
        session.execute(
            text("INSERT INTO effects (job_id, step, fence) VALUES (:job_id, 0, :fence)"),
            {"job_id": job.id, "fence": job.job.fence},
        )
        if job.job.fence == 1:
            # A call by way of PyDLL keeps the interpreter's lock.
            ctypes.PyDLL(None).usleep(int(config.seconds * 1_000_000))
        job.heed(jobs.advance(session, job.job, rows=1))


JOB_TYPE = JobType(name="starve", config=StarveConfig, run=run)
