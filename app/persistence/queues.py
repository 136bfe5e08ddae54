"""Statements on queues: what was asked of them, and how full they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue.

    Args:
        open: Jobs that are due or will be, and not admitted; those that wait for another attempt too.
        slots: Places of live workers.
        wanted_slots: What was asked for at run time, for each worker; ``None`` when nothing was.
        oldest_wait_s: How long the job that waits longest has been due.
    """

    name: str
    paused: bool
    queued: int
    open: int
    running: int
    slots: int
    wanted_slots: int | None
    oldest_wait_s: float | None


_WAITS: Final = "state IN ('open', 'retry_wait') AND NOT paused"


def read(session: Session, names: tuple[str, ...]) -> list[Queue]:
    """Queues by name, in the order given."""
    rows = session.execute(
        text(
            f"""
            SELECT n.name, coalesce(q.paused, false) AS paused, q.slots AS wanted_slots,
                (SELECT count(*) FROM jobs WHERE state = 'queued' AND queue = n.name) AS queued,
                (SELECT count(*) FROM jobs WHERE {_WAITS} AND queue = n.name) AS open,
                (SELECT count(*) FROM workers AS w JOIN jobs AS j ON j.worker = w.id AND j.state = 'running'
                 WHERE w.queue = n.name) AS running,
                (SELECT count(*) FROM workers WHERE queue = n.name AND lease_until > clock_timestamp()) AS slots,
                extract(epoch FROM clock_timestamp() - least(
                    (SELECT min(due_at) FROM jobs WHERE state = 'queued' AND queue = n.name),
                    (SELECT min(due_at) FROM jobs WHERE {_WAITS} AND queue = n.name AND due_at <= clock_timestamp())
                ))::double precision AS oldest_wait_s
            FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS n (name, place) LEFT JOIN queues AS q USING (name)
            ORDER BY n.place
            """
        ),
        {"names": list(names)},
    )
    return [Queue(**row._mapping) for row in rows]


def set_paused(session: Session, name: str, *, paused: bool) -> bool:
    """Pause or resume a queue; whether it was paused before."""
    before = _lock(session, name)
    session.execute(text("UPDATE queues SET paused = :paused WHERE name = :name"), {"name": name, "paused": paused})
    return before[0]


def set_slots(session: Session, name: str, slots: int) -> int | None:
    """Ask for so many slots of each worker of a queue; what was asked for before."""
    before = _lock(session, name)
    session.execute(text("UPDATE queues SET slots = :slots WHERE name = :name"), {"name": name, "slots": slots})
    return before[1]


def wanted_slots(session: Session, name: str) -> int | None:
    """What was asked for."""
    return session.execute(text("SELECT slots FROM queues WHERE name = :name"), {"name": name}).scalar_one_or_none()


def _lock(session: Session, name: str) -> tuple[bool, int | None]:
    session.execute(text("INSERT INTO queues (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": name})
    row = session.execute(text("SELECT paused, slots FROM queues WHERE name = :name FOR UPDATE"), {"name": name}).one()
    return row.paused, row.slots
