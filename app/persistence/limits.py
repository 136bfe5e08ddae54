"""Statements on limits, and the parts of statements that count jobs against them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.job_types import HOUSEKEEPING
from app.domain.limits import Limit, LimitKind

LIMITED: Final = f"type <> '{HOUSEKEEPING}'"
"""Whether a job counts in its tenant's limits: the installation's clearing up, in the tenant that runs it, does not."""
_USES: Final = "SELECT count(*) FROM limit_uses AS u WHERE u.until > clock_timestamp()"

ACTIVE: Final = """
    active AS MATERIALIZED (
        SELECT tenant, type, concurrency_key, count(*) AS jobs FROM (
            SELECT tenant, type, concurrency_key FROM jobs WHERE state = 'queued'
            UNION ALL
            SELECT tenant, type, concurrency_key FROM jobs WHERE state = 'running' AND worker IS NOT NULL
        ) AS j GROUP BY tenant, type, concurrency_key
    )
"""
"""The expression that counts what is admitted and not over."""

LEFT: Final = f"""
    {ACTIVE}, bounds AS MATERIALIZED (
        SELECT kind, tenant, name, least(
            max_concurrency - (SELECT coalesce(sum(jobs), 0) FROM active AS a
                               WHERE l.kind = 'tenant' AND a.tenant = l.tenant AND a.{LIMITED}
                               OR l.kind = 'type' AND a.type = l.name),
            rate - ({_USES} AND (u.kind, u.tenant, u.name) = (l.kind, l.tenant, l.name))
        ) AS places
        FROM limits AS l WHERE kind <> 'key'
    ), keys AS MATERIALIZED (
        SELECT k.tenant, k.concurrency_key, coalesce(a.jobs, 0) AS active, least(
            l.max_concurrency - coalesce(a.jobs, 0),
            l.rate - ({_USES} AND (u.kind, u.tenant, u.name) = ('key', k.tenant, k.concurrency_key))
        ) AS places
        FROM (SELECT DISTINCT tenant, concurrency_key FROM lanes WHERE concurrency_key > '') AS k
        LEFT JOIN (
            SELECT tenant, concurrency_key, sum(jobs) AS jobs FROM active
            WHERE concurrency_key > '' GROUP BY tenant, concurrency_key
        ) AS a ON a.tenant = k.tenant AND a.concurrency_key = k.concurrency_key
        LEFT JOIN LATERAL (
            SELECT * FROM limits AS l WHERE l.kind = 'key' AND l.tenant = k.tenant
            AND l.name IN (k.concurrency_key, split_part(k.concurrency_key, ':', 1))
            ORDER BY l.name <> k.concurrency_key LIMIT 1
        ) AS l ON true
    )
"""
"""Expressions that follow one called ``lanes``: what each limit leaves (``places``; null is no limit)."""

APPLIES: Final = f"""(
    l.kind = 'tenant' AND l.tenant = a.tenant AND a.{LIMITED} OR l.kind = 'type' AND l.name = a.type
    OR l.kind = 'key' AND l.tenant = a.tenant AND a.concurrency_key > '' AND (
        l.name = a.concurrency_key OR l.name = split_part(a.concurrency_key, ':', 1) AND NOT EXISTS (
            SELECT FROM limits AS own WHERE own.kind = 'key' AND own.tenant = a.tenant AND own.name = a.concurrency_key
        )
    )
)"""
"""Whether limit ``l`` holds for job ``a``."""

_COLUMNS: Final = "kind, tenant, name, max_concurrency, rate, period_s, updated_by, updated_at"


def _limit(row: Row[Any]) -> Limit:
    return Limit(
        kind=LimitKind(row.kind),
        tenant=row.tenant,
        name=row.name,
        max_concurrency=row.max_concurrency,
        rate=row.rate,
        period_s=row.period_s,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def visible(session: Session, tenant: str, *, all_tenants: bool) -> list[Limit]:
    """The limits that hold for a tenant's jobs; with ``all_tenants`` those of every tenant as a whole, too."""
    rows = session.execute(
        text(
            f"""
            SELECT {_COLUMNS} FROM limits WHERE tenant IN ('', :tenant) OR kind = 'tenant' AND :all
            ORDER BY kind, tenant, name
            """
        ),
        {"tenant": tenant, "all": all_tenants},
    )
    return [_limit(row) for row in rows]


def get(session: Session, tenant: str, kind: LimitKind, name: str) -> Limit | None:
    """One limit, locked."""
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM limits WHERE (kind, tenant, name) = (:kind, :tenant, :name) FOR UPDATE"),
        {"kind": kind, "tenant": tenant, "name": name},
    ).one_or_none()
    return None if row is None else _limit(row)


def put(
    session: Session,
    tenant: str,
    kind: LimitKind,
    name: str,
    *,
    max_concurrency: int | None,
    rate: int | None,
    period_s: float | None,
    actor: str,
) -> Limit:
    """Set a limit, instead of what was set before."""
    row = session.execute(
        text(
            f"""
            INSERT INTO limits (kind, tenant, name, max_concurrency, rate, period_s, updated_by)
            VALUES (:kind, :tenant, :name, :max_concurrency, :rate, :period_s, :actor)
            ON CONFLICT (kind, tenant, name) DO UPDATE SET max_concurrency = excluded.max_concurrency,
                rate = excluded.rate, period_s = excluded.period_s, updated_by = excluded.updated_by,
                updated_at = clock_timestamp()
            RETURNING {_COLUMNS}
            """
        ),
        {
            "kind": kind,
            "tenant": tenant,
            "name": name,
            "max_concurrency": max_concurrency,
            "rate": rate,
            "period_s": period_s,
            "actor": actor,
        },
    ).one()
    return _limit(row)


def delete(session: Session, tenant: str, kind: LimitKind, name: str) -> None:
    """Take a limit away."""
    session.execute(
        text("DELETE FROM limits WHERE (kind, tenant, name) = (:kind, :tenant, :name)"),
        {"kind": kind, "tenant": tenant, "name": name},
    )


def forget_uses(session: Session) -> int:
    """Remove what counts against no rate any more; how many there were."""
    return len(session.execute(text("DELETE FROM limit_uses WHERE until <= clock_timestamp() RETURNING kind")).all())
