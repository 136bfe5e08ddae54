"""Statements on idempotency keys: which request a key stood for and the jobs it made."""

from __future__ import annotations

from collections.abc import Sequence
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


def find(session: Session, tenant: str, key: str) -> tuple[bytes, list[UUID]] | None:
    """The fingerprint of the key's first request and its jobs."""
    row = session.execute(
        text("SELECT fingerprint, job_ids FROM idempotency_keys WHERE tenant = :tenant AND key = :key"),
        {"tenant": tenant, "key": key},
    ).one_or_none()
    return None if row is None else (bytes(row.fingerprint), list(row.job_ids))


def add(session: Session, tenant: str, key: str, *, fingerprint: bytes, job_ids: Sequence[UUID]) -> None:
    """Remember a key."""
    session.execute(
        text(
            """
            INSERT INTO idempotency_keys (tenant, key, fingerprint, job_ids)
            VALUES (:tenant, :key, :fingerprint, CAST(:job_ids AS uuid[]))
            """
        ),
        {"tenant": tenant, "key": key, "fingerprint": fingerprint, "job_ids": list(job_ids)},
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
