"""Statements that admit waiting jobs, and end those whose time is over."""

from __future__ import annotations

import json
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job, Priority
from app.domain.lifecycle import Event
from app.persistence.families import PARENT_QUEUE
from app.persistence.jobs import ADMISSION_LOCK, COLUMNS, to_job

_WAITING: Final = "state IN ('open', 'retry_wait') AND NOT paused"


def waiting_queues(session: Session) -> list[str]:
    """Queues in which a due job waits to be admitted."""
    rows = session.execute(
        text(
            f"""
            WITH RECURSIVE queues AS (
                (SELECT queue FROM jobs WHERE {_WAITING} ORDER BY queue LIMIT 1)
                UNION ALL
                SELECT (SELECT queue FROM jobs WHERE {_WAITING} AND queue > q.queue ORDER BY queue LIMIT 1)
                FROM queues AS q WHERE q.queue IS NOT NULL
            )
            SELECT queue FROM queues WHERE queue <> '{PARENT_QUEUE}'
            """
        )
    )
    return [row.queue for row in rows]


_ADMIT: Final = text(
    f"""
    WITH RECURSIVE tenants AS (
        (SELECT tenant FROM jobs WHERE queue = :queue AND priority = :priority AND {_WAITING} ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT tenant FROM jobs WHERE queue = :queue AND priority = :priority AND {_WAITING}
                AND tenant > t.tenant ORDER BY tenant LIMIT 1)
        FROM tenants AS t WHERE t.tenant IS NOT NULL
    ), candidates AS (
        SELECT j.id, row_number() OVER (PARTITION BY t.tenant ORDER BY j.due_at, j.id) AS turn, j.due_at
        FROM tenants AS t CROSS JOIN LATERAL (
            SELECT id, due_at FROM jobs WHERE queue = :queue AND priority = :priority
            AND tenant = t.tenant AND {_WAITING}
            AND due_at <= now() ORDER BY due_at, id LIMIT :room
        ) AS j
    ), chosen AS (
        SELECT id, state AS source FROM jobs
        WHERE id IN (SELECT id FROM candidates ORDER BY turn, due_at LIMIT :room) AND {_WAITING}
        FOR UPDATE SKIP LOCKED
    ), admitted AS (
        UPDATE jobs SET state = 'queued', event_no = event_no + 1, updated_at = clock_timestamp(),
            admitted_at = clock_timestamp()
        FROM chosen WHERE jobs.id = chosen.id RETURNING jobs.*, chosen.source
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)
        SELECT id, event_no, tenant, '{Event.ADMIT}', 'engine', source, 'queued', fence FROM admitted
    )
    SELECT count(*) AS admitted FROM admitted
    """
)


def lock_queue(session: Session, queue: str) -> None:
    """Wait for the right to admit into ``queue``; kept to the end of the transaction."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(:space, hashtext(:queue))"), {"space": ADMISSION_LOCK, "queue": queue}
    )


def admit(session: Session, queue: str, priority: Priority, *, bound: int) -> int:
    """Admit due jobs of a class, the tenants in turn, up to ``bound`` queued jobs; how many were admitted.

    The caller holds the queue's lock, so that the count is still true when the jobs are admitted.
    """
    queued = session.execute(
        text(
            """
            SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'queued' AND queue = :queue AND priority = :priority
                                  LIMIT :bound) AS ahead
            """
        ),
        {"queue": queue, "priority": int(priority), "bound": bound},
    ).scalar_one()
    if queued >= bound:
        return 0
    row = session.execute(_ADMIT, {"queue": queue, "priority": int(priority), "room": bound - queued}).one()
    return int(row.admitted)


def end_overdue(session: Session) -> list[Job]:
    """Cancel the jobs whose deadline has passed and that no worker holds; a holder stops its own. Which they were."""
    rows = session.execute(
        text(
            f"""
            WITH late AS (
                SELECT id, state AS source FROM jobs
                WHERE deadline_at <= now() AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait')
                AND (state <> 'running' OR worker IS NULL)
                ORDER BY deadline_at LIMIT 500 FOR UPDATE SKIP LOCKED
            ), ended AS (
                UPDATE jobs SET state = 'cancelled', cancel_reason = 'timeout', event_no = event_no + 1,
                    updated_at = clock_timestamp(), finished_at = clock_timestamp(), worker = NULL
                FROM late WHERE jobs.id = late.id RETURNING jobs.*, late.source
            ), told AS (
                INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
                SELECT id, event_no, tenant, '{Event.CANCEL}', 'engine', source, state, fence, CAST(:data AS jsonb)
                FROM ended
            )
            SELECT {COLUMNS} FROM ended
            """
        ),
        {"data": json.dumps({"reason": "timeout"})},
    )
    return [to_job(row) for row in rows]
