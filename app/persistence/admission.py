"""Statements that admit waiting jobs, and end those whose time is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.job_types import CHEAP_QUEUE
from app.domain.jobs import Job, Priority
from app.domain.lifecycle import TRANSITIONS, Event
from app.domain.pacing import FIRST_TURN_S, MOST, Pace
from app.persistence.families import PARENT_QUEUE
from app.persistence.job_rows import COLUMNS, STATE, to_job
from app.persistence.jobs import ADMISSION_LOCK
from app.persistence.limits import APPLIES, LEFT, LIMITED
from app.persistence.prepared import Prepared

WAITING: Final = "state IN ('open', 'retry_wait') AND NOT paused"
"""Whether a job waits to be admitted, now or later."""
OVERDUE: Final = """deadline_at <= now() AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait')
    AND (state <> 'running' OR worker IS NULL)"""
"""Whether a job's time is over and no worker holds it."""


_WAITING_QUEUES: Final = Prepared(
    f"""
    WITH RECURSIVE waiting AS (
        (SELECT queue FROM jobs WHERE {WAITING} ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT queue FROM jobs WHERE {WAITING} AND queue > q.queue ORDER BY queue LIMIT 1)
        FROM waiting AS q WHERE q.queue IS NOT NULL
    )
    SELECT queue FROM waiting WHERE queue <> '{PARENT_QUEUE}'
    AND NOT EXISTS (SELECT FROM queues WHERE name = waiting.queue AND paused)
    """
)


def waiting_queues(session: Session) -> list[str]:
    """Queues in which a job waits to be admitted and that are not paused."""
    return [row.queue for row in _WAITING_QUEUES.execute(session, {})]


class Lane(NamedTuple):
    """Jobs that the same limits hold: every job that waits stands in one."""

    concurrency_key: str
    max_concurrency: int
    tenant: str
    type: str


FIRST_KEYED: Final = Lane("", 0, "", "")
"""Before every lane that has a key."""
KEYED_LANES_AT_ONCE: Final = 1000
_LANE: Final = ", ".join(Lane._fields)
_CLASS: Final = f"queue = :queue AND priority = :priority AND {WAITING}"

# Lanes are found by skipping through the index: those without a key, and the next thousand that have one. Of each, the
# first jobs are looked at, as many as its limits leave room for, so that a lane that is full costs nothing however long
# it is. Places are ranked within what each limit counts; a job past one of them waits for the next look. It is not
# prepared: without knowing how many are wanted, Postgres plans as if they were a tenth of all.
_ADMIT: Final = text(
    f"""
    WITH RECURSIVE plain AS (
        (SELECT {_LANE} FROM jobs WHERE {_CLASS} AND concurrency_key = '' AND max_concurrency = 0
         ORDER BY tenant, type LIMIT 1)
        UNION ALL
        SELECT next.* FROM plain AS l CROSS JOIN LATERAL (
            SELECT {_LANE} FROM jobs WHERE {_CLASS} AND concurrency_key = '' AND max_concurrency = 0
            AND (tenant, type) > (l.tenant, l.type) ORDER BY tenant, type LIMIT 1
        ) AS next
    ), keyed AS (
        (SELECT {_LANE} FROM jobs WHERE {_CLASS} AND concurrency_key > ''
         AND ({_LANE}) > (:concurrency_key, :max_concurrency, :tenant, :type) ORDER BY {_LANE} LIMIT 1)
        UNION ALL
        SELECT next.* FROM keyed AS l CROSS JOIN LATERAL (
            SELECT {_LANE} FROM jobs WHERE {_CLASS}
            AND ({_LANE}) > (l.concurrency_key, l.max_concurrency, l.tenant, l.type) ORDER BY {_LANE} LIMIT 1
        ) AS next
    ), lanes AS MATERIALIZED (
        SELECT * FROM plain UNION ALL (SELECT * FROM keyed LIMIT {KEYED_LANES_AT_ONCE})
    ), {LEFT}, open_lanes AS MATERIALIZED (
        SELECT l.*, t.places AS of_tenant, y.places AS of_type,
               least(k.places, nullif(l.max_concurrency, 0) - k.active) AS of_key
        FROM lanes AS l LEFT JOIN bounds AS t ON t.kind = 'tenant' AND t.tenant = l.tenant AND l.{LIMITED}
        LEFT JOIN bounds AS y ON y.kind = 'type' AND y.name = l.type
        LEFT JOIN keys AS k ON k.tenant = l.tenant AND k.concurrency_key = l.concurrency_key
    ), candidates AS (
        SELECT l.*, j.id, j.due_at, row_number() OVER (PARTITION BY l.tenant ORDER BY j.due_at, j.id) AS turn
        FROM open_lanes AS l CROSS JOIN LATERAL (
            SELECT id, due_at FROM jobs WHERE {_CLASS}
            AND ({_LANE}) = (l.concurrency_key, l.max_concurrency, l.tenant, l.type)
            AND due_at <= now() ORDER BY due_at, id LIMIT greatest(least(:room, of_tenant, of_type, of_key), 0)
        ) AS j
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY tenant, concurrency_key ORDER BY turn) AS key_rank,
               row_number() OVER (PARTITION BY type ORDER BY turn, due_at, id) AS type_rank
        FROM candidates
    ), best AS (
        SELECT id FROM ranked WHERE turn <= coalesce(of_tenant, :room) AND type_rank <= coalesce(of_type, :room)
        AND (concurrency_key = '' OR key_rank <= coalesce(of_key, :room)) ORDER BY turn, due_at LIMIT :room
    ), chosen AS (
        SELECT j.* FROM best CROSS JOIN LATERAL (
            SELECT id, state AS source FROM jobs WHERE id = best.id AND {STATE} IN ('open', 'retry_wait') AND NOT paused
            FOR UPDATE SKIP LOCKED
        ) AS j
    ), admitted AS (
        UPDATE jobs SET state = 'queued', event_no = event_no + 1, updated_at = clock_timestamp(),
            admitted_at = clock_timestamp(), turn_at = clock_timestamp()
        FROM chosen WHERE jobs.id = chosen.id
        RETURNING jobs.id, event_no, jobs.tenant, jobs.type, jobs.concurrency_key, fence, chosen.source
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)
        SELECT id, event_no, tenant, '{Event.ADMIT}', 'engine', source, 'queued', fence FROM admitted
    ), used AS (
        INSERT INTO limit_uses (kind, tenant, name, until)
        SELECT l.kind, l.tenant, CASE l.kind WHEN 'key' THEN a.concurrency_key ELSE l.name END,
               clock_timestamp() + make_interval(secs => l.period_s)
        FROM admitted AS a JOIN limits AS l ON l.rate IS NOT NULL AND {APPLIES}
    )
    SELECT (SELECT count(*) FROM admitted) AS admitted, (
        SELECT to_jsonb(ARRAY[concurrency_key, max_concurrency::text, tenant, type]) FROM lanes
        WHERE concurrency_key > '' ORDER BY {_LANE} OFFSET {KEYED_LANES_AT_ONCE - 1}
    ) AS last_lane
    """
)


_LOOK: Final = Prepared(
    f"""
    SELECT EXISTS (SELECT FROM jobs WHERE {_CLASS} AND due_at <= now()) AS waits, (
        SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'queued' AND queue = :queue AND priority = :priority
                              AND turn_at <= statement_timestamp() LIMIT :bound) AS before
    ) AS queued
    """
)


def lock_queue(session: Session, queue: str) -> None:
    """Wait for the right to admit into ``queue``; kept to the end of the transaction."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(:space, hashtext(:queue))"), {"space": ADMISSION_LOCK, "queue": queue}
    )


def try_lock_queue(session: Session, queue: str) -> bool:
    """The same, unless somebody else has it."""
    return bool(
        session.execute(
            text("SELECT pg_try_advisory_xact_lock(:space, hashtext(:queue))"),
            {"space": ADMISSION_LOCK, "queue": queue},
        ).scalar_one()
    )


def look(session: Session, queue: str, priority: Priority, *, most: int) -> int | None:
    """How many jobs of a class stand admitted in their turn, counted up to ``most``; ``None`` when none waits to be."""
    [found] = _LOOK.execute(session, {"queue": queue, "priority": int(priority), "bound": most})
    return int(found.queued) if found.waits else None


_GIVE_BACK: Final = text(
    f"""
    WITH early AS (
        SELECT id FROM jobs WHERE state = 'queued' AND queue = :queue AND priority = ANY(:priorities)
        AND turn_at >= admitted_at + make_interval(secs => {FIRST_TURN_S})
        AND :tenant IN ('', tenant) AND :job_type IN ('', type) FOR UPDATE SKIP LOCKED
    ), returned AS (
        UPDATE jobs SET state = '{TRANSITIONS[Event.RETURN].target}', event_no = event_no + 1,
            updated_at = clock_timestamp()
        FROM early WHERE jobs.id = early.id RETURNING jobs.id, event_no, tenant, state, fence
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
        SELECT id, event_no, tenant, '{Event.RETURN}', :actor, 'queued', state, fence,
               jsonb_build_object('reason', CAST(:reason AS text))
        FROM returned
    )
    SELECT count(*) AS returned FROM returned
    """
)


def give_back(
    session: Session,
    queue: str,
    *,
    actor: str,
    reason: str,
    priorities: Sequence[Priority] = tuple(Priority),
    tenant: str = "",
    job_type: str = "",
) -> int:
    """Put the jobs that stand admitted ahead of their turn back to wait; how many there were.

    The caller holds the queue's lock, so that none are being added.

    Args:
        tenant: Only its jobs; ``job_type``: only those of this type. Empty is any.
    """
    bound = {
        "queue": queue,
        "priorities": [int(one) for one in priorities],
        "tenant": tenant,
        "job_type": job_type,
        "actor": actor,
        "reason": reason,
    }
    return int(session.execute(_GIVE_BACK, bound).scalar_one())


def admit(
    session: Session,
    queue: str,
    priority: Priority,
    *,
    bound: int,
    places: dict[tuple[str, Priority], Lane] | None = None,
    pace: Pace | None = None,
) -> int:
    """Admit due jobs of a class, the tenants in turn, up to ``bound`` queued jobs; how many were admitted.

    The caller holds the queue's lock, so that the count is still true when the jobs are admitted; and no two callers
    admit at a time, because limits count over all queues. Those that stand there ahead of their turn (0074) take no
    place while they are quick; when there is none left, they go back and wait with the others.

    Args:
        places: Remembers from which lane to go on, where a class has more lanes with keys than are looked at at once.
        pace: Says how many may be queued, from ``bound`` on, by how fast they go.
    """
    queued = look(session, queue, priority, most=bound * MOST if pace else bound)
    if queued is None:
        return 0
    room = (pace.room(queued, now_s=monotonic()) if pace else bound) - queued
    if (
        room <= 0
        and queue == CHEAP_QUEUE
        and give_back(session, queue, actor="engine", reason="turn", priorities=[priority])
    ):
        return admit(session, queue, priority, bound=bound, places=places, pace=pace)
    admitted = _admit(session, queue, priority, room=room, places=places) if room > 0 else 0
    if pace:
        pace.stands(queued + admitted)
    return admitted


def _admit(
    session: Session, queue: str, priority: Priority, *, room: int, places: dict[tuple[str, Priority], Lane] | None
) -> int:
    after = (places or {}).get((queue, priority), FIRST_KEYED)
    bound = {"queue": queue, "priority": int(priority), "room": room, **after._asdict()}
    # Whoever expects few jobs would sort them all for the first ones, which the index has in order.
    session.execute(text("SET LOCAL enable_sort = off"))
    row = session.execute(_ADMIT, bound).one()
    if places is not None:
        key, most, tenant, job_type = row.last_lane or FIRST_KEYED
        places[queue, priority] = Lane(key, int(most), tenant, job_type)
    return int(row.admitted)


def end_overdue(session: Session) -> list[Job]:
    """Cancel the jobs whose deadline has passed and that no worker holds; a holder stops its own. Which they were."""
    rows = session.execute(
        text(
            f"""
            WITH late AS (
                SELECT id, state AS source FROM jobs
                WHERE {OVERDUE}
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
