"""Statements on what jobs came to, as lines of JSON, and on the jobs that take these lines elsewhere."""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.persistence.families import PARENT_QUEUE
from app.persistence.job_rows import COLUMNS, to_job

VERSION: Final = 1
"""Of the line; it grows with a change that a reader could stumble over."""
_TIMES: Final = ", ".join(
    f"""'{name}', to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    for name in ("created_at", "started_at", "finished_at")
)
_LINE: Final = f"""
    CAST(json_build_object(
        'version', {VERSION}, 'tenant', tenant, 'schedule_id', CAST(:schedule_id AS uuid),
        'batch_id', CAST(:of AS uuid), 'id', id, 'number', coalesce(child_no, 0), 'name', name, 'type', type,
        'parameters', config, 'state', state, 'outcome', outcome, 'attempts', attempts, 'result', result,
        'error', error, {_TIMES}
    ) AS text)
"""


class ResultLine(NamedTuple):
    """What one payload came to.

    Args:
        number: Its place in its batch, from 0.
        run: Another one whenever it has run again.
        text: JSON in one line, without its end.
    """

    number: int
    run: str
    text: str


def page(session: Session, of: Job, *, after: int, limit: int, most_bytes: int) -> list[ResultLine]:
    """What the children of a parent came to, in order from place ``after`` (exclusive) on; of any other job, itself.

    Args:
        most_bytes: No further line once there are so many.
    """
    whose = "parent_id = :of AND child_no > :after" if of.queue == PARENT_QUEUE else "id = :of AND :after < 0"
    rows = session.execute(
        text(
            f"""
            WITH page AS MATERIALIZED (
                SELECT coalesce(child_no, 0) AS number, id || '-' || fence AS run, {_LINE} AS line
                FROM jobs WHERE {whose} AND tenant = :tenant ORDER BY child_no LIMIT :limit
            ), summed AS (
                SELECT *, sum(octet_length(line)) OVER (ORDER BY number) - octet_length(line) AS bytes_before FROM page
            )
            SELECT number, run, line FROM summed WHERE bytes_before < :most_bytes ORDER BY number
            """
        ),
        {
            "of": of.id,
            "schedule_id": of.schedule_id,
            "tenant": of.tenant,
            "after": after,
            "limit": limit,
            "most_bytes": most_bytes,
        },
    )
    return [ResultLine(row.number, row.run, row.line) for row in rows]


def add_delivery(session: Session, batch: UUID, job_id: UUID) -> None:
    """Keep that a job delivers the results of a batch from now on."""
    session.execute(
        text("UPDATE families SET deliveries = deliveries || CAST(:id AS uuid) WHERE job_id = :batch"),
        {"batch": batch, "id": job_id},
    )


def delivery_ids(session: Session, tenant: str, batch: UUID, *, lock: bool = False) -> list[UUID]:
    """The jobs that were to deliver the results of a batch, the last one last.

    Args:
        lock: No other is added before the transaction ends.
    """
    statement = "SELECT deliveries FROM families WHERE job_id = :batch AND tenant = :tenant"
    found = session.execute(
        text(f"{statement} FOR UPDATE" if lock else statement), {"batch": batch, "tenant": tenant}
    ).scalar_one_or_none()
    return list(found or ())


def deliveries(session: Session, tenant: str, batch: UUID) -> list[Job]:
    """The jobs of ``delivery_ids``, those that are kept still."""
    rows = session.execute(
        text(f"SELECT {COLUMNS} FROM jobs WHERE id = ANY(:ids) AND tenant = :tenant ORDER BY number"),
        {"ids": delivery_ids(session, tenant, batch), "tenant": tenant},
    )
    return [to_job(row) for row in rows]
