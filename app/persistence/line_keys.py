"""Statements on the keys that tenants share with those who read encrypted lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError

_COLUMNS: Final = "name, created_by, created_at"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key, without itself."""

    name: str
    created_by: str
    created_at: datetime


def add(session: Session, tenant: str, name: str, *, sealed: bytes, created_by: str) -> KeptKey | None:
    """Store a key; ``None`` when there is one of this name, which lines may have been encrypted with."""
    row = session.execute(
        text(
            f"""
            INSERT INTO line_keys (tenant, name, sealed, created_by) VALUES (:tenant, :name, :sealed, :created_by)
            ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
            """
        ),
        {"tenant": tenant, "name": name, "sealed": sealed, "created_by": created_by},
    ).one_or_none()
    return None if row is None else KeptKey(**row._mapping)


def of_tenant(session: Session, tenant: str) -> list[KeptKey]:
    """A tenant's keys by name."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM line_keys WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [KeptKey(**row._mapping) for row in rows]


def sealed(session: Session, tenant: str, name: str) -> bytes:
    """A key, sealed.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    found = session.execute(
        text("SELECT sealed FROM line_keys WHERE tenant = :tenant AND name = :name"), {"tenant": tenant, "name": name}
    ).scalar_one_or_none()
    if found is None:
        raise _none(name)
    return bytes(found)


def remove(session: Session, tenant: str, name: str) -> None:
    """Forget a key.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    gone = session.execute(
        text("DELETE FROM line_keys WHERE tenant = :tenant AND name = :name RETURNING name"),
        {"tenant": tenant, "name": name},
    ).one_or_none()
    if gone is None:
        raise _none(name)


def _none(name: str) -> NotFoundError:
    return NotFoundError(f"there is no line key {name!r}", code="line_key.not_found")
