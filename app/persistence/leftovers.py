"""Statements on what jobs and uploads that broke off may have left behind."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.persistence.job_rows import ENDED


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job that ended before its files were shown, and what its checkpoint tells of them."""

    job_id: UUID
    tenant: str
    checkpoint: dict[str, Any]


def in_use(session: Session, owners: Collection[UUID]) -> set[UUID]:
    """Which of these ids belong to an upload that may still arrive or to a job that is not over."""
    rows = session.execute(
        text(
            f"""
            SELECT id FROM uploads WHERE id = ANY(:owners) AND completed_at IS NULL
            UNION SELECT id FROM jobs WHERE id = ANY(:owners) AND state NOT IN ({ENDED})
            """
        ),
        {"owners": list(owners)},
    )
    return {row.id for row in rows}


def given_up(session: Session, *, before: datetime, limit: int) -> list[UUID]:
    """Exports of all tenants that failed or were cancelled before that and have files to show for it."""
    rows = session.execute(
        text(
            """
            SELECT j.id FROM tenants AS t JOIN jobs AS j ON j.tenant = t.name AND j.type = 'export'
            WHERE j.state IN ('failed', 'cancelled') AND j.finished_at <= :before AND j.checkpoint ? 'files'
            ORDER BY j.finished_at LIMIT :limit
            """
        ),
        {"before": before, "limit": limit},
    )
    return [row.id for row in rows]


def spooling(session: Session, *, before: datetime, limit: int) -> list[UUID]:
    """Imports of all tenants that failed or were cancelled before that, and may have copied a source by then."""
    rows = session.execute(
        text(
            """
            SELECT j.id FROM tenants AS t JOIN jobs AS j
            ON j.tenant = t.name AND j.type IN ('import', 'insert_csv_file')
            WHERE j.state IN ('failed', 'cancelled') AND j.finished_at <= :before AND j.checkpoint ? 'spooling'
            ORDER BY j.finished_at LIMIT :limit
            """
        ),
        {"before": before, "limit": limit},
    )
    return [row.id for row in rows]


def hold(session: Session, job_id: UUID) -> GivenUp | None:
    """Keep a job from being retried until the transaction ends; ``None`` when it is being retried already."""
    row = session.execute(
        text(
            """
            SELECT id, tenant, checkpoint FROM jobs
            WHERE id = :id AND state IN ('failed', 'cancelled') AND checkpoint IS NOT NULL
            FOR UPDATE SKIP LOCKED
            """
        ),
        {"id": job_id},
    ).one_or_none()
    return None if row is None else GivenUp(row.id, row.tenant, row.checkpoint)


def forget(session: Session, tenant: str, job_id: UUID) -> None:
    """Have the next run of a job that is held begin anew."""
    session.execute(
        text("UPDATE jobs SET checkpoint = NULL WHERE id = :id AND tenant = :tenant"), {"id": job_id, "tenant": tenant}
    )
