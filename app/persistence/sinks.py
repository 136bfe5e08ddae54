"""Statements on sinks."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError
from app.domain.sinks import S3Sink

_COLUMNS: Final = "tenant, name, bucket, region, endpoint, prefix, created_by, created_at, updated_at"


def put(session: Session, tenant: str, name: str, *, sealed: bytes, created_by: str, **place: Any) -> S3Sink:
    """Store a sink, instead of the one of this name if there is one; ``place`` is its bucket and where that is."""
    row = session.execute(
        text(
            f"""
            INSERT INTO sinks (tenant, name, bucket, region, endpoint, prefix, sealed, created_by)
            VALUES (:tenant, :name, :bucket, :region, :endpoint, :prefix, :sealed, :created_by)
            ON CONFLICT (tenant, name) DO UPDATE SET
                bucket = excluded.bucket, region = excluded.region, endpoint = excluded.endpoint,
                prefix = excluded.prefix, sealed = excluded.sealed, updated_at = clock_timestamp()
            RETURNING {_COLUMNS}
            """
        ),
        {"tenant": tenant, "name": name, "sealed": sealed, "created_by": created_by, **place},
    ).one()
    return _sink(row)


def of_tenant(session: Session, tenant: str) -> list[S3Sink]:
    """A tenant's sinks by name."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM sinks WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [_sink(row) for row in rows]


def get(session: Session, tenant: str, name: str) -> tuple[S3Sink, bytes]:
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


def _sink(row: Row[Any]) -> S3Sink:
    return S3Sink(**{name: getattr(row, name) for name in _COLUMNS.split(", ")})
