"""Statements on one job: claim, move, advance, read. Each moves a row by one guarded UPDATE with its event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.errors import FenceLost, NotFoundError
from app.domain.jobs import Job, Priority, Signals
from app.domain.lifecycle import TERMINAL, TRANSITIONS, Event, JobState
from app.persistence.job_rows import COLUMNS, STATE, to_job
from app.persistence.measuring import MIDWAY_TOO, NEW_STAGE
from app.persistence.prepared import Prepared

ADMISSION_LOCK: Final = 0x61646D69
"""Namespace of the advisory locks (one a queue) under which jobs are admitted."""

_CLAIMED_COLUMNS: Final = ", ".join(f"claimed.{name.strip()}" for name in COLUMNS.split(","))
_JSON_COLUMNS: Final = frozenset({"result", "error", "checkpoint", "config", "retry", "counters", "extension", "spent"})


@dataclass(frozen=True, slots=True)
class Sql:
    """A fragment of SQL for a column's new value; always a constant of the code."""

    fragment: str


NOW: Final = Sql("clock_timestamp()")
NEVER: Final = Sql("'infinity'")


COUNTS: Final = """jsonb_build_object(
    'rows_done', rows_done, 'failed', error_count,
    'duration_ms', round(extract(epoch FROM finished_at - started_at) * 1000)
)"""
"""What the end of a job that completed tells of it."""
_TOLD_TOO: Final = {
    Event.COMPLETE: f" || {COUNTS}",
    Event.FAIL: " || jsonb_build_object('error', error)",
    Event.RETRY: " || jsonb_build_object('error', error)",
}
_ROWS_TOO: Final = " || jsonb_build_object('rows_done', rows_done)"
_ITS_STAGE: Final = " || jsonb_strip_nulls(jsonb_build_object('stage', stage))"
_prepared = cache(Prepared)
"""The statements of ``move``: one for each event and set of columns."""


_COUNTED: Final = """), room AS MATERIALIZED (
        SELECT 1000 * count(*) AS cpus_m, sum(coalesce(j.cpu_m, 0)) AS used_m FROM alive, workers AS me, workers AS w
        LEFT JOIN LATERAL (
            SELECT sum(coalesce(cpu_m, 1000)) AS cpu_m FROM jobs WHERE worker = w.id AND state = 'running'
        ) AS j ON true
        WHERE me.id = alive.id AND (w.host, w.process) = (me.host, me.process) AND w.lease_until > clock_timestamp()
"""
"""Processors of a worker: as many as it has slots; and those that its jobs take, one each if they do not say."""


_PRIORITIES: Final = [int(one) for one in Priority]
# Each class has its oldest at hand; all that are queued would have to be sorted.
_OLDEST_CLASS: Final = f"""
    AND j.priority = (
        SELECT class.priority FROM unnest(ARRAY{_PRIORITIES}) AS class (priority) CROSS JOIN LATERAL (
            SELECT turn_at FROM jobs WHERE state = 'queued' AND queue = :queue AND priority = class.priority
            AND NOT paused ORDER BY turn_at LIMIT 1
        ) AS first ORDER BY turn_at LIMIT 1
    )
"""


def _claim_statement(*, oldest: bool, counted: bool) -> str:
    which, order = (_OLDEST_CLASS, "j.turn_at") if oldest else ("", "j.priority, j.turn_at")
    room, fits, fit = (_COUNTED, "AND coalesce(j.cpu_m, 1000) <= cpus_m", "JOIN room ON used_m + cpu_m <= cpus_m")
    if not counted:
        room = fits = fit = ""
    return f"""
    WITH fast AS MATERIALIZED (
        SELECT set_config('synchronous_commit', 'off', true) AS said
    ), alive AS MATERIALIZED (
        SELECT id, process FROM workers, fast
        WHERE said = 'off' AND id = :slot AND lease_until > clock_timestamp() AND NOT draining
        AND NOT EXISTS (SELECT FROM queues WHERE name = :queue AND paused) FOR KEY SHARE OF workers
    {room}), best AS MATERIALIZED (
        SELECT j.id, j.alone, row_number() OVER () AS place, sum(j.cpu_m) OVER (ROWS UNBOUNDED PRECEDING) AS cpu_m
        FROM (
            SELECT j.id, j.alone, coalesce(j.cpu_m, 1000) AS cpu_m FROM jobs AS j, alive{", room" if counted else ""}
            WHERE j.state = 'queued' AND j.queue = :queue AND NOT j.paused {which} {fits}
            ORDER BY {order} LIMIT :most FOR UPDATE OF j SKIP LOCKED
        ) AS j
    ), fit AS (
        SELECT id FROM best {fit}
        WHERE place = 1 OR NOT alone AND NOT EXISTS (SELECT FROM best WHERE place = 1 AND alone)
    ), claimed AS (
        UPDATE jobs SET state = 'running', fence = fence + 1, attempts = attempts + 1, worker = :slot,
            event_no = event_no + 1, updated_at = clock_timestamp(), attempt_started_at = clock_timestamp(),
            progressed_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp()), run_after = NULL
        FROM fit WHERE jobs.id = fit.id RETURNING jobs.*
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
        SELECT id, event_no, tenant, '{Event.CLAIM}', 'worker', 'queued', 'running', fence,
               jsonb_build_object('worker', CAST(:slot AS text), 'worker_name', process, 'attempt', attempts)
        FROM claimed, (SELECT process FROM alive) AS slot
    )
    SELECT {_CLAIMED_COLUMNS} FROM claimed ORDER BY claimed.priority, claimed.turn_at
    """


_CLAIMS: Final = {
    (oldest, counted): Prepared(_claim_statement(oldest=oldest, counted=counted))
    for oldest in (False, True)
    for counted in (False, True)
}


def claim(
    session: Session, queue: str, slot: UUID, *, most: int = 1, oldest: bool = False, counted: bool = False
) -> list[Job]:
    """Take the best queued jobs of ``queue`` for a slot whose lease is running and that does not drain.

    The claim does not wait for the disk: one that a crash of Postgres forgets leaves its job queued, and the guard of
    every later write finds that out.

    Args:
        most: Jobs to take at most; more than one only for cheap types. A job that was held when a worker was lost
            (``alone``) is taken by itself.
        oldest: Take from the class of the longest waiting instead of the most urgent, so that no class starves.
        counted: Take the best only when the worker's processors are not taken up by what it runs; until then the slot
            stays free for it. The caller holds the worker's lock. A job that needs more than the worker has is left to
            another.
    """
    rows = _CLAIMS[oldest, counted].execute(session, {"queue": queue, "slot": slot, "most": most})
    return [to_job(row) for row in rows]


def move(
    session: Session,
    tenant: str,
    job_id: UUID,
    event: Event,
    *,
    actor: str,
    fence: int | None = None,
    unless_held: bool = False,
    unless_asked: bool = False,
    changes: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Job | None:
    """Move a job by ``event`` with its line of the audit trail; ``None`` when the event does not start from its state.

    Args:
        actor: Who did it: a key's id, ``worker``, ``engine``.
        fence: Only while the job is held under this fence; the event then tells its rows, and an error its stage, too.
        unless_held: Leave a running job alone that has a holder, who must be asked; a parent has none.
        unless_asked: Leave a job alone that was asked to end.
        changes: Columns to set besides; values are bound, or ``Sql`` constants.
        data: Facts for the event, beside the error of a failure and the counts of a completion.
    """
    rule = TRANSITIONS[event]
    columns: dict[str, Any] = {"worker": None, **(changes or {})}
    if rule.target in TERMINAL:
        columns["finished_at"] = NOW
    if rule.target is JobState.OPEN:
        columns.setdefault("due_at", NOW)
    told_too = _TOLD_TOO.get(event, "")
    guard = error_too = ""
    if fence is not None:
        guard, error_too, told_too = "AND fence = :held", _ITS_STAGE, told_too + _ROWS_TOO
    sets, bound = _assignments(columns, error_too=error_too)
    if unless_held:
        guard += " AND (state <> 'running' OR worker IS NULL)"
    if unless_asked:
        guard += " AND NOT cancel_requested"
    rows = _prepared(
        f"""
        WITH before AS (
            SELECT id, state AS source FROM jobs
            WHERE id = :id AND tenant = :tenant AND state = ANY(:sources) {guard} FOR UPDATE
        ), moved AS (
            UPDATE jobs SET state = :target, event_no = event_no + 1, updated_at = clock_timestamp(), {sets}
            FROM before WHERE jobs.id = before.id RETURNING jobs.*, before.source
        ), told AS (
            INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
            SELECT id, event_no, tenant, :event, :actor, source, state, fence, CAST(:data AS jsonb){told_too} FROM moved
        )
        SELECT {COLUMNS} FROM moved
        """
    ).execute(
        session,
        {
            **bound,
            "id": job_id,
            "tenant": tenant,
            "sources": sorted(rule.sources),
            "held": fence,
            "target": rule.target,
            "event": event,
            "actor": actor,
            "data": json.dumps(data or {}),
        },
    )
    return to_job(rows[0]) if rows else None


def mark(
    session: Session,
    tenant: str,
    job_id: UUID,
    event: Event,
    *,
    actor: str,
    states: frozenset[JobState],
    changes: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
) -> Job | None:
    """Record a fact that moves no state (a wish to cancel, a pause); ``None`` outside ``states``."""
    sets, bound = _assignments(changes)
    row = session.execute(
        text(
            f"""
            WITH marked AS (
                UPDATE jobs SET event_no = event_no + 1, updated_at = clock_timestamp(), {sets}
                WHERE id = :id AND tenant = :tenant AND state = ANY(:states) RETURNING *
            ), told AS (
                INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
                SELECT id, event_no, tenant, :event, :actor, state, state, fence, CAST(:data AS jsonb) FROM marked
            )
            SELECT {COLUMNS} FROM marked
            """
        ),
        {
            **bound,
            "id": job_id,
            "tenant": tenant,
            "states": sorted(states),
            "event": event,
            "actor": actor,
            "data": json.dumps(data or {}),
        },
    ).one_or_none()
    return None if row is None else to_job(row)


def _assignments(changes: Mapping[str, Any], *, error_too: str = "") -> tuple[str, dict[str, Any]]:
    sets, bound = [], {}
    for name, value in changes.items():
        if isinstance(value, Sql):
            sets.append(f"{name} = {value.fragment}")
        elif name in _JSON_COLUMNS:
            sets.append(f"{name} = CAST(:set_{name} AS jsonb){error_too if name == 'error' and value else ''}")
            bound[f"set_{name}"] = None if value is None else json.dumps(value)
        else:
            sets.append(f"{name} = :set_{name}")
            bound[f"set_{name}"] = value
    return ", ".join(sets), bound


def advance(
    session: Session,
    job: Job,
    *,
    rows: int = 0,
    failed: int = 0,
    rows_done: int | None = None,
    rows_total: int | None = None,
    bytes_done: int | None = None,
    bytes_total: int | None = None,
    counters: Mapping[str, int] | None = None,
    stage: str | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    spent: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Signals:
    """Write a holder's progress, guarded by its fence: the last statement before a batch's COMMIT.

    Last, because it locks the row that every heartbeat and every other lane of the job wants, and because a batch whose
    guard fails is rolled back with everything it wrote.

    Args:
        rows: Added to the rows done; ``failed`` to the error count; ``counters`` to the counters of these names.
        rows_done: Set instead of added. Rows are what counts as progress: added ones, and those beyond what any run has
            said, forget earlier rescues.
        checkpoint: Replaces the job's checkpoint; ``spent`` what its runs have spent; ``config`` its config.
    Returns:
        What the holder is asked to do.
    Raises:
        FenceLost: The job is no longer running under ``job.fence``.
    """
    sets = ["rows_done = rows_done + :rows", "error_count = error_count + :failed", MIDWAY_TOO]
    bound: dict[str, Any] = {"rows": rows, "failed": failed, "id": job.id, "fence": job.fence}
    plain = {"rows_total": rows_total, "bytes_done": bytes_done, "bytes_total": bytes_total}
    for name, value in plain.items():
        if value is not None:
            sets.append(
                f"{name} = :{name}" if name != "bytes_done" else "bytes_done = greatest(bytes_done, :bytes_done)"
            )
            bound[name] = value
    if stage is not None:
        sets.append(NEW_STAGE)
        bound["stage"] = stage
    if rows_done is not None:
        sets[0] = "rows_done = :rows, rows_reached = greatest(rows_reached, :rows)"
        bound["rows"] = rows_done
    if counters:
        parts = []
        for position, (name, count) in enumerate(counters.items()):
            parts.append(
                f"CAST(:name{position} AS text), "
                f"coalesce((counters ->> CAST(:name{position} AS text))::bigint, 0) + CAST(:count{position} AS bigint)"
            )
            bound[f"name{position}"], bound[f"count{position}"] = name, count
        sets.append(f"counters = counters || jsonb_build_object({', '.join(parts)})")
    kept = {"checkpoint": checkpoint, "spent": spent, "config": config}
    for name, document in kept.items():
        if document is not None:
            sets.append(f"{name} = CAST(:{name} AS jsonb)")
            bound[name] = json.dumps(document)
    if rows:
        sets.append("rescues = 0")
    elif rows_done:
        # A run that began anew says again what one before it said, and may kill its worker at the same place.
        sets.append("rescues = CASE WHEN :rows > coalesce(rows_reached, 0) THEN 0 ELSE rescues END")
    row = session.execute(
        text(
            f"""
            UPDATE jobs SET updated_at = clock_timestamp(), progressed_at = clock_timestamp(),
                {", ".join(sets)}
            WHERE id = :id AND fence = :fence AND {STATE} = 'running'
            RETURNING cancel_requested, cancel_reason, paused
            """
        ),
        bound,
    ).one_or_none()
    if row is None:
        raise FenceLost(f"job {job.id} is no longer held under fence {job.fence}")
    return Signals(cancel_requested=row.cancel_requested, cancel_reason=row.cancel_reason, paused=row.paused)


_GET: Final = Prepared(f"SELECT {COLUMNS} FROM jobs WHERE id = :id AND tenant = :tenant")
_LOCK: Final = Prepared(f"SELECT {COLUMNS} FROM jobs WHERE id = :id AND tenant = :tenant FOR UPDATE")


def get(session: Session, tenant: str, job_id: UUID, *, lock: bool = False) -> Job:
    """One job; with ``lock`` nobody else changes it before the transaction ends.

    Raises:
        NotFoundError: There is none of this id for the tenant.
    """
    rows = (_LOCK if lock else _GET).execute(session, {"id": job_id, "tenant": tenant})
    if not rows:
        raise NotFoundError(f"there is no job {job_id}", code="job.not_found")
    return to_job(rows[0])
