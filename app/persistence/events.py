"""Statements that read the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.jobs import Job, JobEvent
from app.domain.lifecycle import Event, JobState
from app.persistence.job_rows import COLUMNS, to_job

_READ: Final = text(
    """
    SELECT job_id, number, type, at, actor, source, target, fence, data FROM job_events
    WHERE job_id = :job_id AND tenant = :tenant AND number > :after AND (NOT :errors OR data ? 'error')
    ORDER BY number LIMIT :limit
    """
)


def of_job(
    session: Session, tenant: str, job_id: UUID, *, after: int = 0, limit: int = 100, errors: bool = False
) -> list[JobEvent]:
    """The trail of one job from event ``after`` (exclusive) on, in order; ``errors`` keeps the errors."""
    rows = session.execute(
        _READ, {"job_id": job_id, "tenant": tenant, "after": after, "limit": limit, "errors": errors}
    )
    return [JobEvent(**values(row)) for row in rows]


_HOLDS: Final = text(
    f"""
    SELECT job_id, number, type, at, actor, source, target, fence, data FROM job_events
    WHERE job_id = :job_id AND tenant = :tenant AND fence > :after
    AND (type = '{Event.CLAIM}' OR source = 'running' AND target <> 'running')
    ORDER BY number LIMIT :limit
    """
)


def of_holds(session: Session, tenant: str, job_id: UUID, *, after: int, limit: int) -> list[JobEvent]:
    """The beginnings and ends of up to ``limit`` holds on a job, those above fence ``after``, in order."""
    rows = session.execute(_HOLDS, {"job_id": job_id, "tenant": tenant, "after": after, "limit": 2 * limit})
    return [JobEvent(**values(row)) for row in rows]


def after(
    session: Session,
    tenant: str,
    seq: int,
    *,
    limit: int,
    job_id: UUID | None = None,
    types: Sequence[str] = (),
) -> list[JobEvent]:
    """The tenant's numbered events above ``seq``, in order; of one job or of some types only."""
    read_in_order(session)
    rows = session.execute(
        text(
            f"""
            SELECT e.job_id, e.number, e.type, e.at, e.actor, e.source, e.target, e.fence, e.data, n.seq
            FROM numbered_events AS n JOIN job_events AS e ON e.job_id = n.job_id AND e.number = n.number
            WHERE n.tenant = :tenant AND n.last_seq > :seq AND n.seq > :seq
            {"AND e.job_id = :job_id AND n.xact = e.xact" if job_id else ""}
            {"AND e.type = ANY(:types)" if types else ""}
            ORDER BY n.last_seq, n.seq LIMIT :limit
            """
        ),
        {"tenant": tenant, "seq": seq, "job_id": job_id, "types": list(types), "limit": limit},
    )
    return [JobEvent(**values(row)) for row in rows]


def read_in_order(session: Session) -> None:
    """Have the transaction read ``numbered_events`` a segment after the other.

    Whoever expects that few are of the types wanted would sort all of them, to the end of the sequence, for a page.
    """
    session.execute(text("SET LOCAL enable_sort = off"))


def last_numbers(session: Session, tenants: Sequence[str]) -> dict[str, int]:
    """The last number given in each tenant's sequence; tenants without an event are left out."""
    rows = session.execute(
        text("SELECT tenant, last FROM event_counters WHERE tenant = ANY(:tenants)"), {"tenants": list(tenants)}
    )
    return {row.tenant: int(row.last) for row in rows}


def running_jobs(session: Session, tenant: str, *, job_id: UUID | None = None, limit: int = 1000) -> list[Job]:
    """The tenant's running jobs, or one of them."""
    rows = session.execute(
        text(
            f"""
            SELECT {COLUMNS} FROM jobs WHERE tenant = :tenant AND state = 'running'
            {"AND id = :job_id" if job_id else ""} LIMIT :limit
            """
        ),
        {"tenant": tenant, "job_id": job_id, "limit": limit},
    )
    return [to_job(row) for row in rows]


def values(row: Row[Any]) -> dict[str, Any]:
    """A row's values by the names of an event's fields."""
    source = JobState(row.source) if row.source else None
    return {**row._mapping, "source": source, "target": JobState(row.target)}


def last_errors(session: Session, tenant: str, job_ids: Sequence[UUID], *, limit: int) -> dict[UUID, list[str]]:
    """The messages of each job's last failures, at most ``limit`` a job, newest last."""
    rows = session.execute(
        text(
            """
            SELECT job_id, array_agg(message ORDER BY number) AS messages FROM (
                SELECT job_id, number, data -> 'error' ->> 'message' AS message,
                       row_number() OVER (PARTITION BY job_id ORDER BY number DESC) AS back
                FROM job_events WHERE job_id = ANY(:ids) AND tenant = :tenant AND data ? 'error'
            ) AS failures WHERE back <= :limit GROUP BY job_id
            """
        ),
        {"ids": list(job_ids), "tenant": tenant, "limit": limit},
    )
    return {row.job_id: row.messages for row in rows}
