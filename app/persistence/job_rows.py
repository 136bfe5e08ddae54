"""What is read of a row of ``jobs``, and the domain object of it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row

from app.domain.jobs import Job, Origin, Outcome, Priority
from app.domain.lifecycle import TERMINAL, JobState
from app.domain.measures import Measures
from app.domain.progress import Progress
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy

COLUMNS: Final = """
    id, number, tenant, type, queue, state, priority, config, retry, origin, created_by, created_at, updated_at, fence,
    attempts, rescues, event_no, paused, cancel_requested, cancel_reason, run_after, deadline_at, attempt_timeout_s,
    admitted_at, started_at, finished_at, outcome, rows_done, rows_total, bytes_done, bytes_total, stage, parts_done,
    parts_total, counters, error_count, checkpoint, result, error, worker, parent_id, child_no, name,
    needs_left, clone_of, schedule_id, labels, dialect, concurrency_key, max_concurrency, memory_mb, cpu_m,
    spent, stage_at, stage_seconds, midway_at, midway_part
"""

STATE: Final = "(state || '')"
"""The state in a condition on a job that is looked up by its id. By a bare ``state`` Postgres may read a partial index
instead, all of it for each job, when it last saw few jobs in that state: an hour ago, before ten thousand came."""
ENDED: Final = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
"""The terminal states, for ``IN``."""


def to_job(row: Row[Any]) -> Job:
    """The domain object of a row that selected ``COLUMNS``."""
    return Job(
        id=row.id,
        number=row.number,
        tenant=row.tenant,
        type=row.type,
        queue=row.queue,
        state=JobState(row.state),
        priority=Priority(row.priority),
        config=row.config,
        retry=RetryPolicy.from_json(row.retry),
        origin=Origin(row.origin),
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        fence=row.fence,
        attempts=row.attempts,
        rescues=row.rescues,
        event_no=row.event_no,
        paused=row.paused,
        cancel_requested=row.cancel_requested,
        cancel_reason=row.cancel_reason,
        run_after=row.run_after,
        deadline_at=row.deadline_at,
        attempt_timeout_s=row.attempt_timeout_s,
        admitted_at=row.admitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=Outcome(row.outcome) if row.outcome else None,
        progress=Progress(
            row.rows_done, row.rows_total, row.bytes_done, row.bytes_total, row.stage, row.parts_done, row.parts_total
        ),
        counters=row.counters,
        error_count=row.error_count,
        checkpoint=row.checkpoint,
        result=row.result,
        error=row.error,
        worker=row.worker,
        parent_id=row.parent_id,
        child_no=row.child_no,
        name=row.name,
        needs_left=row.needs_left,
        clone_of=row.clone_of,
        schedule_id=row.schedule_id,
        labels=row.labels,
        dialect=row.dialect,
        concurrency_key=row.concurrency_key or None,
        max_concurrency=row.max_concurrency or None,
        resources=Resources(row.memory_mb, row.cpu_m),
        measures=Measures(row.spent, row.stage_at, row.stage_seconds, row.midway_at, row.midway_part),
    )
