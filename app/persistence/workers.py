"""Statements on worker slots and their leases. Time is the database's alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.persistence.job_rows import COLUMNS, to_job
from app.persistence.prepared import Prepared

_CLAIM_LOCK: Final = 0x636C6169
"""Namespace of the advisory locks (one a worker) under which jobs that count processors are claimed."""


def application_name(slot: UUID) -> str:
    """What every connection of a slot calls itself, so that the engine finds them all when the slot is lost."""
    return f"haulier slot {slot}"


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in which a worker runs one job at a time.

    Args:
        may_kill: Whether its process is its own, so that killing it ends only its job.
    """

    id: UUID
    queue: str
    host: str
    process: str
    pid: int
    parent_pid: int
    may_kill: bool = False


def register(session: Session, slot: Slot, *, lease_s: float) -> None:
    """Make a slot known, with a fresh lease."""
    session.execute(
        text(
            """
            INSERT INTO workers (id, queue, host, process, pid, parent_pid, may_kill, lease_until)
            VALUES (:id, :queue, :host, :process, :pid, :parent_pid, :may_kill,
                    clock_timestamp() + make_interval(secs => :lease_s))
            """
        ),
        {
            "id": slot.id,
            "queue": slot.queue,
            "host": slot.host,
            "process": slot.process,
            "pid": slot.pid,
            "parent_pid": slot.parent_pid,
            "may_kill": slot.may_kill,
            "lease_s": lease_s,
        },
    )


@dataclass(frozen=True, slots=True)
class Held:
    """What the database knows of a job a slot holds; seconds are by its clock."""

    job_id: UUID
    slot: UUID
    fence: int
    cancel_requested: bool
    cancel_reason: str | None
    terminate: bool
    paused: bool
    deadline_passed: bool
    draining: bool
    attempt_s: float
    attempt_timeout_s: float | None
    silent_s: float


_HELD: Final = """
    j.id AS job_id, j.fence, j.cancel_requested, j.cancel_reason, j.terminate, j.paused, w.draining,
    coalesce(j.deadline_at <= clock_timestamp(), false) AS deadline_passed, j.attempt_timeout_s,
    extract(epoch FROM clock_timestamp() - j.attempt_started_at)::double precision AS attempt_s,
    extract(epoch FROM clock_timestamp() - j.progressed_at)::double precision AS silent_s
"""
_BEAT: Final = text(
    f"""
    WITH renewed AS (
        UPDATE workers SET lease_until = clock_timestamp() + make_interval(secs => :lease_s)
        WHERE id = ANY(:slots) RETURNING id, draining
    )
    SELECT w.id AS slot, {_HELD} FROM renewed AS w LEFT JOIN jobs AS j ON j.worker = w.id AND j.state = 'running'
    """
)
_ASKED: Final = Prepared(
    f"""
    SELECT w.id AS slot, {_HELD} FROM workers AS w JOIN jobs AS j ON j.worker = w.id AND j.state = 'running'
    WHERE w.id = ANY(CAST(:slots AS uuid[]))
    AND (w.draining OR j.cancel_requested OR j.paused OR j.deadline_at <= clock_timestamp())
    """
)


def beat(session: Session, slots: Sequence[UUID], *, lease_s: float) -> tuple[set[UUID], list[Held]]:
    """Renew the leases of a process's slots and read what their jobs are asked to do, in one round trip.

    Returns:
        The slots that still exist (one that does not was given up for lost), and the jobs they hold.
    """
    rows = session.execute(_BEAT, {"slots": list(slots), "lease_s": lease_s}).all()
    return {row.slot for row in rows}, [_held(row) for row in rows if row.job_id is not None]


def asked(session: Session, slots: Sequence[UUID]) -> list[Held]:
    """The jobs that slots hold and that are asked to stop."""
    return [_held(row) for row in _ASKED.execute(session, {"slots": list(slots)})]


def _held(row: Any) -> Held:
    return Held(
        job_id=row.job_id,
        slot=row.slot,
        fence=row.fence,
        cancel_requested=row.cancel_requested,
        cancel_reason=row.cancel_reason,
        terminate=row.terminate,
        paused=row.paused,
        deadline_passed=row.deadline_passed,
        draining=row.draining,
        attempt_s=row.attempt_s,
        attempt_timeout_s=row.attempt_timeout_s,
        silent_s=row.silent_s,
    )


def lock_process(session: Session, slot: UUID) -> None:
    """Keep other slots of a slot's worker from claiming until the transaction ends."""
    session.execute(
        text(
            """
            SELECT set_config('enable_seqscan', 'off', true), pg_advisory_xact_lock(:space, hashtext(host || process))
            FROM workers WHERE id = :slot
            """
        ),
        {"space": _CLAIM_LOCK, "slot": slot},
    )


def retire(session: Session, slots: Sequence[UUID]) -> None:
    """Forget slots that ended in order and hold no job."""
    session.execute(
        text(
            """
            DELETE FROM workers AS w WHERE w.id = ANY(:slots)
            AND NOT EXISTS (SELECT FROM jobs WHERE worker = w.id AND state = 'running')
            """
        ),
        {"slots": list(slots)},
    )


def expire(session: Session, *, host: str, parent_pid: int, pids: Sequence[int]) -> int:
    """End the leases of a pool's children that are known to be dead; how many there were."""
    result = session.execute(
        text(
            """
            UPDATE workers SET lease_until = clock_timestamp() - interval '1 second'
            WHERE host = :host AND parent_pid = :parent_pid AND pid = ANY(:pids) AND lease_until > clock_timestamp()
            RETURNING id
            """
        ),
        {"host": host, "parent_pid": parent_pid, "pids": list(pids)},
    )
    return len(result.all())


def drain(session: Session, *, host: str, pid: int) -> None:
    """Ask every slot of a worker, its children's too, to claim no more and hand back what it holds."""
    session.execute(
        text("UPDATE workers SET draining = true WHERE host = :host AND :pid IN (pid, parent_pid)"),
        {"host": host, "pid": pid},
    )


def children(session: Session, *, host: str, parent_pid: int) -> list[int]:
    """The pids of a pool's children that have a slot."""
    rows = session.execute(
        text("SELECT DISTINCT pid FROM workers WHERE host = :host AND parent_pid = :parent_pid"),
        {"host": host, "parent_pid": parent_pid},
    )
    return [row.pid for row in rows]


def lapsed(session: Session) -> list[UUID]:
    """Slots whose lease is over."""
    rows = session.execute(text("SELECT id FROM workers WHERE lease_until < clock_timestamp() LIMIT 100"))
    return [row.id for row in rows]


def is_lapsed(session: Session, slot: UUID) -> bool:
    """Whether a slot's lease is over; it is locked then for this transaction. One that another holds is not."""
    found = session.execute(
        text("SELECT FROM workers WHERE id = :slot AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED"),
        {"slot": slot},
    )
    return found.one_or_none() is not None


def terminate_backends(session: Session, slot: UUID) -> int:
    """End every database session of a slot, so that a stopped worker holds no row lock; how many there were."""
    rows = session.execute(
        text(
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = :name AND usename = current_user AND pid <> pg_backend_pid()
            """
        ),
        {"name": application_name(slot)},
    )
    return len(rows.all())


def jobs_of(session: Session, slot: UUID) -> list[Job]:
    """The running jobs that a slot holds."""
    rows = session.execute(
        text(f"SELECT {COLUMNS} FROM jobs WHERE worker = :slot AND state = 'running' ORDER BY id"), {"slot": slot}
    )
    return [to_job(row) for row in rows]


def forget(session: Session, slot: UUID) -> None:
    """Remove a lost slot; its holder finds out at its next beat and its next guarded write."""
    session.execute(text("DELETE FROM workers WHERE id = :slot"), {"slot": slot})


def may_kill(session: Session, slot: UUID) -> bool:
    """Whether a slot's process is its own; one that is gone has nothing that could be killed."""
    return bool(session.execute(text("SELECT may_kill FROM workers WHERE id = :slot"), {"slot": slot}).scalar())


@dataclass(frozen=True, slots=True)
class LiveSlot:
    """A slot as it is shown; ``job_ids`` are of every tenant."""

    id: UUID
    queue: str
    process: str
    host: str
    pid: int
    may_kill: bool
    draining: bool
    started_at: datetime
    lease_until: datetime
    job_ids: list[UUID]


def live(session: Session) -> list[LiveSlot]:
    """Every slot that is registered, with the jobs it holds."""
    rows = session.execute(
        text(
            """
            SELECT id, queue, process, host, pid, may_kill, draining, started_at, lease_until,
                   ARRAY(SELECT j.id::text FROM jobs AS j WHERE j.worker = w.id AND j.state = 'running') AS job_ids
            FROM workers AS w ORDER BY queue, process, started_at, id
            """
        )
    )
    return [LiveSlot(**{**row._mapping, "job_ids": [UUID(job_id) for job_id in row.job_ids]}) for row in rows]


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """How busy a queue is."""

    queue: str
    queued: int
    slots: int
    busy: int


_LOADS: Final = Prepared(
    """
    SELECT coalesce(q.queue, w.queue) AS queue, coalesce(q.queued, 0) AS queued, coalesce(w.slots, 0) AS slots,
           coalesce(w.busy, 0) AS busy
    FROM (SELECT queue, count(*) AS queued FROM jobs WHERE state = 'queued'
          AND NOT EXISTS (SELECT FROM queues WHERE name = queue AND paused) GROUP BY queue) AS q
    FULL JOIN (
        SELECT queue, count(*) AS slots,
               count(*) FILTER (WHERE EXISTS (
                   SELECT FROM jobs WHERE worker = workers.id AND state = 'running')) AS busy
        FROM workers WHERE lease_until > clock_timestamp() GROUP BY queue
    ) AS w ON w.queue = q.queue
    """
)


def loads(session: Session) -> list[QueueLoad]:
    """Queued jobs and slots of every queue that has either; one that is paused has no job for anybody."""
    rows = _LOADS.execute(session, {})
    return [QueueLoad(row.queue, row.queued, row.slots, row.busy) for row in rows]
