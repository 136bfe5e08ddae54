"""Statements on the record of what people changed that is no job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ``what`` was made by ``actor``, and its values before and after."""

    id: int
    at: datetime
    tenant: str
    actor: str
    what: str
    before: Any
    after: Any


def add(session: Session, tenant: str, *, actor: str, what: str, before: Any, after: Any) -> None:
    """Record a change, in its own transaction's terms: it is kept if the change is."""
    session.execute(
        text(
            """
            INSERT INTO changes (tenant, actor, what, before, after)
            VALUES (:tenant, :actor, :what, CAST(:before AS jsonb), CAST(:after AS jsonb))
            """
        ),
        {
            "tenant": tenant,
            "actor": actor,
            "what": what,
            "before": json.dumps(before),
            "after": json.dumps(after),
        },
    )


def newest(session: Session, tenant: str, *, limit: int, before: int | None) -> list[Change]:
    """What a tenant's keys changed, newest first, from the change ``before`` (exclusive) on."""
    rows = session.execute(
        text(
            """
            SELECT id, at, tenant, actor, what, before, after FROM changes
            WHERE tenant = :tenant AND id < coalesce(:before, 9223372036854775807) ORDER BY id DESC LIMIT :limit
            """
        ),
        {"tenant": tenant, "limit": limit, "before": before},
    )
    return [Change(**row._mapping) for row in rows]
