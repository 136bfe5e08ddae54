"""A tenant's sinks, opened for a job."""

from __future__ import annotations

from functools import partial

from app.domain.errors import PermanentError
from app.security.master_keys import MasterKeys
from app.security.outgoing.guard import Outgoing
from app.services.sinks import OpenBucket, OpenWebhook, Sinks
from app.storage.sinks import SinkStore
from tasks.context import RunContext


def open_sink(job: RunContext, name: str) -> OpenBucket | OpenWebhook:
    """A sink of the job's tenant; PermanentError and JobError as ``Sinks.open``."""
    keys, settings = MasterKeys(job.settings.master_keys), job.settings
    sinks = Sinks(job.sessions, keys, partial(SinkStore, settings), Outgoing.from_settings(settings))
    return sinks.open(job.job.tenant, name)


def open_bucket(job: RunContext, name: str) -> OpenBucket:
    """A sink that takes files; PermanentError ``sink.no_bucket`` for any other."""
    found = open_sink(job, name)
    if isinstance(found, OpenWebhook):
        raise PermanentError(f"sink {name!r} is a receiver of results and takes no files", code="sink.no_bucket")
    return found
