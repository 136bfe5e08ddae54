"""Statements on the small values that a tenant's jobs share."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.errors import FenceLost
from app.domain.jobs import Job
from app.persistence.job_rows import STATE

MOST_VALUES: Final = 10_000


def get(session: Session, tenant: str, key: str) -> tuple[Any] | None:
    """The value of a key; ``None`` when there is none or its time is over."""
    row = session.execute(
        text(
            "SELECT value FROM cache_entries WHERE tenant = :tenant AND key = :key AND expires_at > clock_timestamp()"
        ),
        {"tenant": tenant, "key": key},
    ).one_or_none()
    return None if row is None else (row.value,)


def put(session: Session, job: Job, key: str, value: Any, *, ttl_s: float) -> None:
    """Keep a value for the tenant of a job that is held; beyond the bound those go that would expire first.

    Raises:
        FenceLost: The job is no longer running under ``job.fence``.
    """
    bound = {"tenant": job.tenant, "key": key, "value": json.dumps(value), "ttl_s": ttl_s}
    stored = session.execute(
        text(
            f"""
            WITH held AS (
                SELECT FROM jobs WHERE id = :id AND fence = :fence AND {STATE} = 'running' FOR SHARE
            )
            INSERT INTO cache_entries (tenant, key, value, expires_at)
            SELECT :tenant, :key, CAST(:value AS jsonb), clock_timestamp() + make_interval(secs => :ttl_s) FROM held
            ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
            RETURNING key
            """
        ),
        {**bound, "id": job.id, "fence": job.fence},
    ).one_or_none()
    if stored is None:
        raise FenceLost(f"job {job.id} is no longer held under fence {job.fence}")
    session.execute(
        text(
            """
            DELETE FROM cache_entries WHERE tenant = :tenant AND key <> :key AND expires_at <= (
                SELECT expires_at FROM cache_entries WHERE tenant = :tenant
                ORDER BY expires_at DESC OFFSET :most LIMIT 1
            )
            """
        ),
        {"tenant": job.tenant, "key": key, "most": MOST_VALUES},
    )


def prune(session: Session) -> int:
    """Forget the values whose time is over; how many there were."""
    rows = session.execute(text("DELETE FROM cache_entries WHERE expires_at <= clock_timestamp() RETURNING key"))
    return len(rows.all())
