"""The plug-in API: what a job type from another package needs, and nothing of the inside.

A package adds a job type by an entry point of the group ``haulier.job_types`` that leads to a ``JobType``, and a
listener by one of the group ``haulier.listeners`` that leads to a ``Listener``. Those of ``haulier.validators`` and
``haulier.enrichers`` lead to a ``Validator`` and an ``Enricher`` for the rows of imports, those of ``haulier.sinks`` to
a ``Sink`` that takes the files of exports.
"""

from app.domain.errors import JobCancelled, JobError, JobPaused, PermanentError, TransientError
from app.domain.job_types import JobCache, JobConfig, JobContext, JobType, Result
from app.domain.jobs import Job, Outcome
from app.domain.listeners import HeardEvent, Listener
from app.domain.retry import RetryPolicy
from app.domain.row_plugins import Enricher, Unenriched, Validator
from app.domain.sink_plugins import Sink, SinkFile

__version__ = "0.1.0"

__all__ = [
    "Enricher",
    "HeardEvent",
    "Job",
    "JobCache",
    "JobCancelled",
    "JobConfig",
    "JobContext",
    "JobError",
    "JobPaused",
    "JobType",
    "Listener",
    "Outcome",
    "PermanentError",
    "Result",
    "RetryPolicy",
    "Sink",
    "SinkFile",
    "TransientError",
    "Unenriched",
    "Validator",
    "__version__",
]
