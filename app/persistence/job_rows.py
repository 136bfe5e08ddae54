"""What is read of a row of ``jobs``, and the domain object of it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Row

from app.domain.jobs import Job, Origin, Outcome, Priority
from app.domain.lifecycle import TERMINAL, JobState
from app.domain.measures import Measures
from app.domain.progress import Progress
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy

_AS_THEY_ARE: Final = (
    *("id", "number", "tenant", "type", "queue", "config", "created_by", "created_at", "updated_at", "fence"),
    *("attempts", "rescues", "event_no", "paused", "cancel_requested", "cancel_reason", "run_after", "deadline_at"),
    *("attempt_timeout_s", "admitted_at", "started_at", "finished_at", "counters", "error_count", "checkpoint"),
    *("result", "error", "worker", "parent_id", "child_no", "name", "needs_left", "clone_of", "schedule_id"),
    "dialect",
)
"""The columns that are attributes of a job, by the same names."""
COLUMNS: Final = f"""
    {", ".join(_AS_THEY_ARE)},
    labels, state, priority, retry::text AS retry, origin, outcome, rows_done, rows_total, bytes_done, bytes_total,
    stage, parts_done, parts_total, concurrency_key, max_concurrency, memory_mb, cpu_m, spent, stage_at, stage_seconds,
    midway_at, midway_part
"""

STATE: Final = "(state || '')"
"""The state in a condition on a job that is looked up by its id. By a bare ``state`` Postgres may read a partial index
instead, all of it for each job, when it last saw few jobs in that state: an hour ago, before ten thousand came."""
ENDED: Final = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
"""The terminal states, for ``IN``."""


_STATES: Final = {state.value: state for state in JobState}
_PRIORITIES: Final = {priority.value: priority for priority in Priority}
_ORIGINS: Final = {origin.value: origin for origin in Origin}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_progress: Final = lru_cache(1024)(Progress)
_resources: Final = lru_cache(1024)(Resources)
_NO_MEASURES: Final = Measures()
_NOTHING_TAKEN: Final = (None,) * 5


@lru_cache(1024)
def _retry(text: str) -> RetryPolicy:
    return RetryPolicy.from_json(json.loads(text))


def to_job(row: Row[Any]) -> Job:
    """The domain object of a row that selected ``COLUMNS``, and nothing before them.

    Jobs come by the thousands: what is alike in most of them is made once, and the attributes are set at once, because
    a frozen object sets them one by one.
    """
    job = object.__new__(Job)
    job.__dict__.update(
        zip(_AS_THEY_ARE, row, strict=False),
        labels=row.labels or {},
        state=_STATES[row.state],
        priority=_PRIORITIES[row.priority],
        retry=_retry(row.retry),
        origin=_ORIGINS[row.origin],
        outcome=_OUTCOMES[row.outcome] if row.outcome else None,
        progress=_progress(
            row.rows_done, row.rows_total, row.bytes_done, row.bytes_total, row.stage, row.parts_done, row.parts_total
        ),
        concurrency_key=row.concurrency_key or None,
        max_concurrency=row.max_concurrency or None,
        resources=_resources(row.memory_mb, row.cpu_m),
        measures=_measures(row),
    )
    return job


def _measures(row: Row[Any]) -> Measures:
    taken = (row.spent, row.stage_at, row.stage_seconds, row.midway_at, row.midway_part)
    return _NO_MEASURES if taken == _NOTHING_TAKEN else Measures(*taken)
