"""``poison``: kills the process that runs it."""

from __future__ import annotations

import os
import signal

from app.domain.job_types import JobConfig, JobType
from tasks.context import RunContext


class PoisonConfig(JobConfig):
    """How."""

    how: str = "kill"


def run(_job: RunContext, config: PoisonConfig) -> None:
    """Die, or run out of memory, or swallow every stop."""
    if config.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "memory":
        raise MemoryError
    while True:
        signal.pause()


JOB_TYPE = JobType(name="poison", config=PoisonConfig, run=run)
