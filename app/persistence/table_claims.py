"""Statements on who has put off a table's secondary indexes until it has filled it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.domain.lifecycle import TERMINAL


def take(session: Session, job: Job, table: str) -> bool:
    """Claim a table for a job that holds its fence; whether no job that is not over has it."""
    row = session.execute(
        text(
            """
            INSERT INTO table_claims AS kept (tenant, table_name, job_id, fence)
            VALUES (:tenant, :table, :job_id, :fence)
            ON CONFLICT (tenant, table_name) DO UPDATE
                SET job_id = excluded.job_id, fence = excluded.fence, claimed_at = clock_timestamp()
                WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = kept.job_id AND jobs.state <> ALL(:over))
            RETURNING job_id
            """
        ),
        {"tenant": job.tenant, "table": table, "job_id": job.id, "fence": job.fence, "over": sorted(TERMINAL)},
    ).one_or_none()
    return row is not None


def holder(session: Session, tenant: str, table: str) -> UUID | None:
    """The job that has the table and is not over."""
    found: UUID | None = session.execute(
        text(
            """
            SELECT job_id FROM table_claims AS c JOIN jobs AS j ON j.id = c.job_id
            WHERE c.tenant = :tenant AND c.table_name = :table AND j.state <> ALL(:over)
            """
        ),
        {"tenant": tenant, "table": table, "over": sorted(TERMINAL)},
    ).scalar_one_or_none()
    return found


def release(session: Session, tenant: str, table: str, *, by: UUID) -> None:
    """Forget a job's claim to a table, or that of a job that is over."""
    session.execute(
        text(
            """
            DELETE FROM table_claims AS c WHERE tenant = :tenant AND table_name = :table AND (
                job_id = :by OR NOT EXISTS (SELECT FROM jobs WHERE jobs.id = c.job_id AND jobs.state <> ALL(:over))
            )
            """
        ),
        {"tenant": tenant, "table": table, "by": by, "over": sorted(TERMINAL)},
    )


def drop(session: Session, tenant: str, table: str) -> None:
    """Forget whatever claim there is to a table that is dropped."""
    session.execute(
        text("DELETE FROM table_claims WHERE tenant = :tenant AND table_name = :table"),
        {"tenant": tenant, "table": table},
    )
