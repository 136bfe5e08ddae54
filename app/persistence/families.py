"""Statements on families: parents, the window of children at work, and the counts of their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.families import Counts, Kind, Member, OnFailure
from app.domain.jobs import Job, Priority
from app.domain.lifecycle import TRANSITIONS, Event, JobState
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy
from app.persistence.job_rows import COLUMNS, to_job
from app.persistence.prepared import Prepared

PARENT_QUEUE: Final = "families"
"""The queue of parents, which no worker serves: the engine alone moves them."""
GIVER: Final = "job:"
"""Begins the name of a job as the maker of another: a payload that gave its batch another payload."""
_ACTIVE: Final = "state IN ('open', 'queued', 'running')"
"""Children in the window; one that waits for another attempt has left it."""
_RELEASABLE: Final = "parent_id IS NOT NULL AND state = 'blocked' AND needs_left = 0"
RETRYING: Final = "parent_id IS NOT NULL AND state = 'retry_wait' AND NOT paused"


@dataclass(frozen=True, slots=True)
class Family:
    """A parent's row, as far as its window goes."""

    job_id: UUID
    tenant: str
    kind: Kind
    max_concurrency: int
    on_failure: OnFailure
    total: int
    completed: int
    failed: int
    cancelled: int


def add(
    session: Session,
    tenant: str,
    job_id: UUID,
    kind: Kind,
    *,
    max_concurrency: int,
    max_payloads: int,
    on_failure: OnFailure,
    total: int,
) -> None:
    """Make a job a parent."""
    session.execute(
        text(
            """
            INSERT INTO families (job_id, tenant, kind, max_concurrency, max_payloads, on_failure, total)
            VALUES (:job_id, :tenant, :kind, :max_concurrency, :max_payloads, :on_failure, :total)
            """
        ),
        {
            "job_id": job_id,
            "tenant": tenant,
            "kind": kind,
            "max_concurrency": max_concurrency,
            "max_payloads": max_payloads,
            "on_failure": on_failure,
            "total": total,
        },
    )


def grow(session: Session, job_id: UUID, by: int) -> int:
    """Count ``by`` more children in; the total before."""
    return int(
        session.execute(
            text("UPDATE families SET total = total + :by WHERE job_id = :id RETURNING total - :by"),
            {"id": job_id, "by": by},
        ).scalar_one()
    )


def room(session: Session, job_id: UUID) -> tuple[Kind, int] | None:
    """What a parent's children are and how many more it takes; ``None`` when the job is no parent."""
    row = session.execute(
        text("SELECT kind, max_payloads - total AS places FROM families WHERE job_id = :id"), {"id": job_id}
    ).one_or_none()
    return None if row is None else (Kind(row.kind), row.places)


def extension(session: Session, job_id: UUID) -> list[dict[str, Any]]:
    """The payloads that a job gave to its batch."""
    row = session.execute(text("SELECT extension FROM jobs WHERE id = :id"), {"id": job_id}).one()
    return list(row.extension)


def lock(session: Session, job_id: UUID) -> Job | None:
    """The parent's job, locked: always before any of its children."""
    row = session.execute(text(f"SELECT {COLUMNS} FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id}).one_or_none()
    return None if row is None else to_job(row)


_DUE: Final = Prepared(
    f"""
    SELECT {COLUMNS} FROM jobs AS p WHERE queue = '{PARENT_QUEUE}' AND state = 'open' AND NOT paused
    AND due_at <= now() AND ((SELECT reopened FROM families WHERE job_id = p.id) IS NOT TRUE OR (
        SELECT true FROM event_segments AS s CROSS JOIN LATERAL unnest(s.jobs) AS e (job_id)
        WHERE s.last_seq IS NULL AND (SELECT parent_id FROM jobs WHERE id = e.job_id) = p.id LIMIT 1
    ) IS NULL)
    ORDER BY priority, due_at LIMIT :most FOR UPDATE SKIP LOCKED
    """
)


def due(session: Session, *, most: int) -> list[Job]:
    """Parents whose time to start has come, locked; one that was opened again starts when its counts are true again."""
    return [to_job(row) for row in _DUE.execute(session, {"most": most})]


def fold(session: Session, job_id: UUID, changes: Mapping[JobState, int]) -> Family:
    """Add ends to a parent's counts (a child that was opened again takes one away); the counts after."""
    row = session.execute(
        text(
            """
            UPDATE families SET completed = completed + :completed, failed = failed + :failed,
                cancelled = cancelled + :cancelled
            WHERE job_id = :id RETURNING *
            """
        ),
        {
            "id": job_id,
            "completed": changes.get(JobState.COMPLETED, 0),
            "failed": changes.get(JobState.FAILED, 0),
            "cancelled": changes.get(JobState.CANCELLED, 0),
        },
    ).one()
    return Family(
        job_id=row.job_id,
        tenant=row.tenant,
        kind=Kind(row.kind),
        max_concurrency=row.max_concurrency,
        on_failure=OnFailure(row.on_failure),
        total=row.total,
        completed=row.completed,
        failed=row.failed,
        cancelled=row.cancelled,
    )


# Those at work are not counted, all ten thousand of a wide window at each end, when none waits to be released.
_RELEASE: Final = Prepared(
    f"""
    WITH room AS MATERIALIZED (
        SELECT CASE
            WHEN (SELECT true FROM jobs WHERE parent_id = :parent AND {_RELEASABLE} LIMIT 1) IS NULL
             AND (SELECT true FROM jobs WHERE parent_id = :parent AND {RETRYING} LIMIT 1) IS NULL THEN 0
            ELSE greatest(:window - (SELECT count(*) FROM jobs WHERE parent_id = :parent AND {_ACTIVE}), 0)
        END AS places
    ), again AS MATERIALIZED (
        SELECT id, state AS source FROM jobs
        WHERE parent_id = :parent AND {RETRYING} AND run_after <= clock_timestamp()
        ORDER BY run_after LIMIT (SELECT places FROM room) FOR UPDATE
    ), fresh AS (
        SELECT id, state AS source FROM jobs WHERE parent_id = :parent AND {_RELEASABLE}
        ORDER BY child_no LIMIT (SELECT places FROM room) - (SELECT count(*) FROM again) FOR UPDATE
    ), next AS (
        SELECT * FROM again UNION ALL SELECT * FROM fresh
    ), moved AS (
        UPDATE jobs SET state = '{TRANSITIONS[Event.RELEASE].target}', event_no = event_no + 1,
            updated_at = clock_timestamp(), due_at = coalesce(run_after, clock_timestamp())
        FROM next WHERE jobs.id = next.id RETURNING jobs.id, event_no, tenant, state, fence, next.source
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)
        SELECT id, event_no, tenant, '{Event.RELEASE}', 'engine', source, state, fence FROM moved
    )
    SELECT id FROM moved
    """
)


def release(session: Session, parent: UUID, *, window: int) -> list[UUID]:
    """Open the next children, retries that are due first, as far as ``window`` children at work leave room."""
    return [row.id for row in _RELEASE.execute(session, {"parent": parent, "window": window})]


_REPORT: Final = Prepared(
    f"""
    WITH now AS MATERIALIZED (
        SELECT completed + failed + cancelled AS done, total, CASE WHEN kind = '{Kind.PIPELINE}' THEN (
            SELECT left(string_agg(name, ', ' ORDER BY child_no), 1000) FROM jobs
            WHERE parent_id = f.job_id AND state IN ('open', 'queued', 'running', 'retry_wait')
        ) END AS stage FROM families AS f WHERE job_id = :parent
    ), told AS (
        UPDATE jobs SET parts_done = now.done, parts_total = now.total, stage = now.stage,
            updated_at = clock_timestamp()
        FROM now WHERE id = :parent
        AND (parts_done, parts_total, jobs.stage) IS DISTINCT FROM (now.done, now.total, now.stage)
        RETURNING id
    )
    SELECT id FROM told
    """
)


def report(session: Session, parent: UUID) -> None:
    """Have a parent say how many of its children are over, and a pipeline which stages are at work."""
    _REPORT.execute(session, {"parent": parent})


def touch(session: Session, parent: Job) -> None:
    """Have the engine look at a family anew: it has children that no end will release."""
    session.execute(text("UPDATE families SET stirred = true WHERE job_id = :id"), {"id": parent.id})


def touch_all(session: Session, schedule_id: UUID) -> None:
    """``touch`` every family that a schedule made and that is at work."""
    session.execute(
        text(
            """
            UPDATE families SET stirred = true
            WHERE job_id IN (SELECT id FROM jobs WHERE schedule_id = :id AND state = 'running')
            """
        ),
        {"id": schedule_id},
    )


_STIRRED: Final = Prepared(
    f"""
    WITH RECURSIVE retrying AS (
        (SELECT parent_id FROM jobs WHERE {RETRYING} ORDER BY parent_id LIMIT 1)
        UNION ALL
        SELECT (SELECT parent_id FROM jobs WHERE {RETRYING} AND parent_id > r.parent_id
                ORDER BY parent_id LIMIT 1)
        FROM retrying AS r WHERE r.parent_id IS NOT NULL
    ), touched AS (
        UPDATE families SET stirred = false WHERE stirred RETURNING job_id
    )
    SELECT job_id FROM touched UNION SELECT parent_id FROM retrying AS r WHERE EXISTS (
        SELECT FROM jobs WHERE {RETRYING} AND parent_id = r.parent_id AND run_after <= clock_timestamp()
    )
    """
)


def stirred(session: Session) -> list[UUID]:
    """The families to look at anew: those that were touched, and those with a retry that is due."""
    return sorted(row.job_id for row in _STIRRED.execute(session, {}))


def counts(session: Session, tenant: str, job_id: UUID) -> Counts | None:
    """How many children stand where; ``None`` when the job is no parent."""
    row = session.execute(
        text(
            f"""
            SELECT f.*, coalesce(a.running, 0) AS running, coalesce(a.waiting, 0) AS waiting FROM families AS f
            LEFT JOIN LATERAL (
                SELECT count(*) FILTER (WHERE state = 'running') AS running, count(*) AS waiting
                FROM jobs WHERE parent_id = f.job_id AND {_ACTIVE}
            ) AS a ON true
            WHERE f.job_id = :id AND f.tenant = :tenant
            """
        ),
        {"id": job_id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        return None
    return Counts(
        total=row.total, running=row.running, completed=row.completed, failed=row.failed, cancelled=row.cancelled
    )


_CANCEL: Final = text(
    f"""
    WITH children AS (
        SELECT id, state AS source FROM jobs WHERE parent_id = :parent AND tenant = :tenant
        AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait') AND (:begun OR started_at IS NULL)
        ORDER BY id FOR UPDATE
    ), moved AS (
        UPDATE jobs SET state = CASE WHEN source = 'running' THEN 'running' ELSE 'cancelled' END,
            cancel_requested = cancel_requested OR source = 'running', cancel_reason = :reason,
            terminate = terminate OR :terminate AND source = 'running',
            finished_at = CASE WHEN source <> 'running' THEN clock_timestamp() END,
            event_no = event_no + 1, updated_at = clock_timestamp()
        FROM children WHERE jobs.id = children.id RETURNING jobs.*, children.source
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
        SELECT id, event_no, tenant,
               CASE WHEN state = 'running' THEN '{Event.REQUEST_CANCEL}' ELSE '{Event.CANCEL}' END,
               :actor, source, state, fence, jsonb_build_object('reason', cancel_reason)
        FROM moved
    )
    SELECT count(*) AS moved FROM moved
    """
)


def cancel_children(
    session: Session, tenant: str, parent: UUID, *, actor: str, reason: str = "parent", terminate: bool = False
) -> int:
    """End the children that wait and ask those that run to stop, in one statement; how many there were.

    Args:
        terminate: Those that run are killed instead of asked, where their process is their own.
    """
    bound = {
        "parent": parent,
        "tenant": tenant,
        "actor": actor,
        "reason": reason,
        "terminate": terminate,
        "begun": True,
    }
    return int(session.execute(_CANCEL, bound).scalar_one())


def skip_children(session: Session, tenant: str, parent: UUID) -> int:
    """End the children that have not begun; what has begun goes on to its end. How many there were."""
    bound = {
        "parent": parent,
        "tenant": tenant,
        "actor": "engine",
        "reason": "skipped",
        "terminate": False,
        "begun": False,
    }
    return int(session.execute(_CANCEL, bound).scalar_one())


def payloads(session: Session, tenant: str, batch: UUID, *, after: int, limit: int) -> list[tuple[int, Member]]:
    """What a batch was given, each with its place, from ``after`` (exclusive) on; not what its payloads gave it."""
    rows = session.execute(
        text(
            f"""
            SELECT child_no, type, config, queue, retry, attempt_timeout_s, name, priority, concurrency_key,
                max_concurrency, memory_mb, cpu_m FROM jobs
            WHERE parent_id = :batch AND tenant = :tenant AND child_no > :after AND created_by NOT LIKE '{GIVER}%'
            ORDER BY child_no LIMIT :limit
            """
        ),
        {"batch": batch, "tenant": tenant, "after": after, "limit": limit},
    )
    return [(row.child_no, _member(row)) for row in rows]


def _member(row: Row[Any]) -> Member:
    return Member(
        type=row.type,
        config=row.config,
        queue=row.queue,
        retry=RetryPolicy.from_json(row.retry),
        attempt_timeout_s=row.attempt_timeout_s,
        name=row.name,
        priority=Priority(row.priority),
        concurrency_key=row.concurrency_key or None,
        max_concurrency=row.max_concurrency or None,
        resources=Resources(row.memory_mb, row.cpu_m),
    )


def children(
    session: Session, tenant: str, parent: UUID, *, after: int, limit: int, states: tuple[JobState, ...] = ()
) -> list[Job]:
    """The children in their order, from place ``after`` (exclusive) on."""
    rows = session.execute(
        text(
            f"""
            SELECT {COLUMNS} FROM jobs WHERE parent_id = :parent AND tenant = :tenant AND child_no > :after
            AND (:any_state OR state = ANY(:states)) ORDER BY child_no LIMIT :limit
            """
        ),
        {
            "parent": parent,
            "tenant": tenant,
            "after": after,
            "limit": limit,
            "any_state": not states,
            "states": list(states),
        },
    )
    return [to_job(row) for row in rows]
