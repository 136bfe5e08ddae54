"""Statements on idempotency keys: which request a key stood for and the job it made."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

_SPACE: Final = 0x6964656D


def try_lock(session: Session, tenant: str, key: str) -> bool:
    """Whether no other request with this key is in flight; held to the end of the transaction."""
    return bool(
        session.execute(
            text("SELECT pg_try_advisory_xact_lock(:space, hashtext(:name))"),
            {"space": _SPACE, "name": f"{tenant} {key}"},
        ).scalar_one()
    )


def find(session: Session, tenant: str, key: str) -> tuple[bytes, UUID] | None:
    """The fingerprint of the key's first request and its job."""
    row = session.execute(
        text("SELECT fingerprint, job_id FROM idempotency_keys WHERE tenant = :tenant AND key = :key"),
        {"tenant": tenant, "key": key},
    ).one_or_none()
    return None if row is None else (bytes(row.fingerprint), row.job_id)


def add(session: Session, tenant: str, key: str, *, fingerprint: bytes, job_id: UUID) -> None:
    """Remember a key."""
    session.execute(
        text(
            """
            INSERT INTO idempotency_keys (tenant, key, fingerprint, job_id)
            VALUES (:tenant, :key, :fingerprint, :job_id)
            """
        ),
        {"tenant": tenant, "key": key, "fingerprint": fingerprint, "job_id": job_id},
    )


def prune(session: Session, *, older_than_s: int) -> int:
    """Forget keys older than that; how many there were."""
    result = session.execute(
        text(
            """
            DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => :age_s)
            RETURNING key
            """
        ),
        {"age_s": older_than_s},
    )
    return len(result.all())
