"""Listeners: functions of other packages that are called with what happens to jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.domain.jobs import JobEvent

ENTRY_POINT_GROUP: Final = "haulier.listeners"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardEvent(JobEvent):
    """An event as a listener hears it; ``(tenant, seq)`` is its identity."""

    tenant: str
    job_type: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A plug-in that hears events.

    Every event of every tenant comes at least once, and those of a job in their order; after an engine was lost some
    come again. An event that it raises on is tried again a few times and then left out.

    Args:
        name: Under which it is remembered how far it has heard. Another name begins anew, with what happens from then
            on.
        handle: Called in a thread of its own, for one event at a time.
        events: Names of events (``job.completed``); none means all.
        job_types: Names of job types; none means all.
        wants: Says of an event that is left whether it is handed on.
    """

    name: str
    handle: Callable[[HeardEvent], None]
    events: frozenset[str] = frozenset()
    job_types: frozenset[str] = frozenset()
    wants: Callable[[HeardEvent], bool] | None = None
