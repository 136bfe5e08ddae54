"""Statements on before-images: what rows were before a job first wrote them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


def tables(session: Session, job_id: UUID) -> dict[str, int]:
    """How many rows a job can give back, by the table they stand in, in the order of names."""
    rows = session.execute(
        text(
            "SELECT table_name, count(*) AS rows FROM before_images WHERE job_id = :job "
            "GROUP BY table_name ORDER BY table_name"
        ),
        {"job": job_id},
    )
    return {row.table_name: row.rows for row in rows}


def are_kept(session: Session, job_id: UUID) -> bool:
    """Whether a job can give back anything."""
    found = session.execute(text("SELECT EXISTS (SELECT FROM before_images WHERE job_id = :job)"), {"job": job_id})
    return bool(found.scalar_one())


def lock(session: Session, job_id: UUID) -> None:
    """Wait until no other transaction gives rows of this job back, and keep others out until this one ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"revert {job_id}"})
