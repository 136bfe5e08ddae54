"""``small_poison``: ``poison`` that is claimed together with others."""

from __future__ import annotations

from app.domain.job_types import JobType
from tests.faults.job_types.poison import PoisonConfig, run

JOB_TYPE = JobType(name="small_poison", config=PoisonConfig, run=run, queue="small", cheap=True)
