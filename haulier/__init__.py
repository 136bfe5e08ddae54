"""The plug-in API: what a job type from another package needs, and nothing of the inside.

A package adds a job type by an entry point of the group ``haulier.job_types`` that leads to a ``JobType``.
"""

from app.domain.errors import JobCancelled, JobError, JobPaused, TransientError
from app.domain.job_types import JobConfig, JobContext, JobType, Result
from app.domain.jobs import Job, Outcome
from app.domain.retry import RetryPolicy

__version__ = "0.1.0"

__all__ = [
    "Job",
    "JobCancelled",
    "JobConfig",
    "JobContext",
    "JobError",
    "JobPaused",
    "JobType",
    "Outcome",
    "Result",
    "RetryPolicy",
    "TransientError",
    "__version__",
]
