"""Statements on the names under which jobs export: each is one job's at a time."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.persistence.job_rows import ENDED


def claim(session: Session, place: str, stem: str, job_id: UUID) -> UUID:
    """Take a name, or find it taken: whose it is by then, the job's own when it was free.

    The row is locked until the transaction ends, so that of two that want it one waits for the other.
    """
    row = session.execute(
        text(
            """
            INSERT INTO export_names (place, stem, job_id) VALUES (:place, :stem, :job_id)
            ON CONFLICT (place, stem) DO UPDATE SET job_id = export_names.job_id RETURNING job_id
            """
        ),
        {"place": place, "stem": stem, "job_id": job_id},
    ).one()
    holder: UUID = row.job_id
    return holder


def holders(session: Session, place: str, stems: Collection[str]) -> dict[str, UUID]:
    """Whose these names are; one that nobody has is left out."""
    rows = session.execute(
        text("SELECT stem, job_id FROM export_names WHERE place = :place AND stem = ANY(:stems)"),
        {"place": place, "stems": list(stems)},
    )
    return {row.stem: row.job_id for row in rows}


def is_active(session: Session, job_id: UUID) -> bool:
    """Whether the job may still write."""
    return bool(
        session.execute(
            text(f"SELECT EXISTS (SELECT FROM jobs WHERE id = :id AND state NOT IN ({ENDED}))"), {"id": job_id}
        ).scalar_one()
    )


def hand_over(session: Session, place: str, stem: str, job_id: UUID) -> None:
    """Give a name to another job."""
    session.execute(
        text("UPDATE export_names SET job_id = :job_id WHERE place = :place AND stem = :stem"),
        {"place": place, "stem": stem, "job_id": job_id},
    )


def forget_files(session: Session, former: UUID, bucket: str, stem: str) -> None:
    """Note that a former job's files under a name are gone, so that their expiry removes no file of the next."""
    session.execute(
        text(
            """
            UPDATE artifacts SET removed_at = clock_timestamp()
            WHERE job_id = :former AND bucket = :bucket AND starts_with(key, :stem) AND removed_at IS NULL
            """
        ),
        {"former": former, "bucket": bucket, "stem": stem},
    )
