"""Statements on sinks."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError
from app.domain.sinks import S3Sink, TenantSink, WebhookSink

_OF_ALL: Final = ("tenant", "name", "created_by", "created_at", "updated_at")
_PLACE: Final = ("origin", "bucket", "region", "endpoint", "prefix")
_COLUMNS: Final = ", ".join((*_OF_ALL, *_PLACE))


def put(session: Session, tenant: str, name: str, *, sealed: bytes, created_by: str, **place: Any) -> TenantSink:
    """Store a sink, instead of the one of this name if there is one; ``place`` is an origin, or a bucket's place."""
    row = session.execute(
        text(
            f"""
            INSERT INTO sinks (tenant, name, origin, bucket, region, endpoint, prefix, sealed, created_by)
            VALUES (:tenant, :name, :origin, :bucket, :region, :endpoint, :prefix, :sealed, :created_by)
            ON CONFLICT (tenant, name) DO UPDATE SET
                origin = excluded.origin, bucket = excluded.bucket, region = excluded.region,
                endpoint = excluded.endpoint, prefix = excluded.prefix, sealed = excluded.sealed,
                updated_at = clock_timestamp()
            RETURNING {_COLUMNS}
            """
        ),
        {
            **dict.fromkeys(_PLACE),
            "tenant": tenant,
            "name": name,
            "sealed": sealed,
            "created_by": created_by,
            **place,
        },
    ).one()
    return _sink(row)


def place_of(session: Session, tenant: str, name: str) -> dict[str, Any] | None:
    """Where a sink is, as ``put`` takes it, locked; ``None`` when there is none."""
    row = session.execute(
        text(f"SELECT {', '.join(_PLACE)} FROM sinks WHERE tenant = :tenant AND name = :name FOR UPDATE"),
        {"tenant": tenant, "name": name},
    ).one_or_none()
    return None if row is None else dict(row._mapping)


def of_tenant(session: Session, tenant: str) -> list[TenantSink]:
    """A tenant's sinks by name."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM sinks WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [_sink(row) for row in rows]


def get(session: Session, tenant: str, name: str) -> tuple[TenantSink, bytes]:
    """One sink, and what opens it, sealed.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    row = session.execute(
        text(f"SELECT {_COLUMNS}, sealed FROM sinks WHERE tenant = :tenant AND name = :name"),
        {"tenant": tenant, "name": name},
    ).one_or_none()
    if row is None:
        raise _none(name)
    return _sink(row), bytes(row.sealed)


def remove(session: Session, tenant: str, name: str) -> None:
    """Forget a sink.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    gone = session.execute(
        text("DELETE FROM sinks WHERE tenant = :tenant AND name = :name RETURNING name"),
        {"tenant": tenant, "name": name},
    ).one_or_none()
    if gone is None:
        raise _none(name)


def _none(name: str) -> NotFoundError:
    return NotFoundError(f"there is no sink {name!r}", code="sink.not_found")


def _sink(row: Row[Any]) -> TenantSink:
    of_all = {name: getattr(row, name) for name in _OF_ALL}
    if row.origin is not None:
        return WebhookSink(**of_all, origin=row.origin)
    return S3Sink(**of_all, bucket=row.bucket, region=row.region, endpoint=row.endpoint, prefix=row.prefix)
