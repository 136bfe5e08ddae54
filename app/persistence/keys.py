"""Statements on tenants and API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.access import ApiKey, Role
from app.domain.errors import NotFoundError

_COLUMNS: Final = "id, tenant, role, label, created_by, created_at, expires_at, revoked_at"


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        role=Role(row.role),
        label=row.label,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def add_tenant(session: Session, tenant: str) -> None:
    """Make a tenant known; one that is known stays as it is."""
    session.execute(text("INSERT INTO tenants (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": tenant})


def add(
    session: Session,
    tenant: str,
    *,
    key_id: str,
    secret_hash: bytes,
    role: Role,
    label: str,
    created_by: str,
    expires_at: datetime | None,
) -> ApiKey:
    """Store a key."""
    row = session.execute(
        text(
            f"""
            INSERT INTO api_keys (id, tenant, secret_hash, role, label, created_by, expires_at)
            VALUES (:id, :tenant, :secret_hash, :role, :label, :created_by, :expires_at) RETURNING {_COLUMNS}
            """
        ),
        {
            "id": key_id,
            "tenant": tenant,
            "secret_hash": secret_hash,
            "role": role,
            "label": label,
            "created_by": created_by,
            "expires_at": expires_at,
        },
    ).one()
    return _key(row)


def live(session: Session, key_id: str) -> tuple[ApiKey, bytes] | None:
    """A key that is neither revoked nor expired, with its hash; of any tenant, for this is how the tenant is found."""
    row = session.execute(
        text(
            f"""
            SELECT {_COLUMNS}, secret_hash FROM api_keys
            WHERE id = :id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
            """
        ),
        {"id": key_id},
    ).one_or_none()
    return None if row is None else (_key(row), bytes(row.secret_hash))


def of_tenant(session: Session, tenant: str) -> list[ApiKey]:
    """The tenant's keys, newest first."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM api_keys WHERE tenant = :tenant ORDER BY created_at DESC"), {"tenant": tenant}
    )
    return [_key(row) for row in rows]


def revoke(session: Session, tenant: str, key_id: str) -> ApiKey:
    """End a key now; ending it again changes nothing.

    Raises:
        NotFoundError: The tenant has no such key.
    """
    row = session.execute(
        text(
            f"""
            UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
            WHERE id = :id AND tenant = :tenant RETURNING {_COLUMNS}
            """
        ),
        {"id": key_id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no key {key_id!r}", code="key.not_found")
    return _key(row)
