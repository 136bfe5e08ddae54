"""Statements that read the ledger: the rows of files that jobs refused."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.failed_records import FailedRecord

_READ: Final = text(
    """
    SELECT line, first_byte, end_byte, raw, raw_is_base64, field, code, message, at FROM failed_records
    WHERE job_id = :job_id AND tenant = :tenant AND line > :after
    ORDER BY line LIMIT :limit
    """
)


def of_job(session: Session, tenant: str, job_id: UUID, *, after: int = -1, limit: int = 100) -> list[FailedRecord]:
    """A job's failed records behind line ``after``, in the order of the file, at most ``limit``."""
    rows = session.execute(_READ, {"job_id": job_id, "tenant": tenant, "after": after, "limit": limit})
    return [FailedRecord(*row) for row in rows]
