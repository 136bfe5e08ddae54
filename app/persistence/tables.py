"""Statements on the catalogue of declared tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.tables import Column, ColumnType, Index, Table


def declaration(table: Table) -> dict[str, Any]:
    """``table`` in JSON types, as the catalogue keeps it and the API shows it."""
    kept = asdict(table)
    kept["columns"] = [{**asdict(column), "type": column.type.value} for column in table.columns]
    return kept


def from_declaration(kept: dict[str, Any]) -> Table:
    """The table whose ``declaration`` is ``kept``."""
    return Table(
        name=kept["name"],
        columns=tuple(Column(**{**column, "type": ColumnType(column["type"])}) for column in kept["columns"]),
        key=tuple(kept["key"]),
        indexes=tuple(Index(**{**index, "columns": tuple(index["columns"])}) for index in kept["indexes"]),
        generated_key=tuple(kept["generated_key"]),
        aliases=dict(kept["aliases"]),
        version=kept["version"],
    )


def lock(session: Session, tenant: str, name: str) -> None:
    """Wait until no other transaction changes this table, and keep others out until this one ends."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"),
        {"subject": f"haulier.table {tenant} {name}"},
    )


def lock_schema(session: Session, tenant: str) -> None:
    """The same for the tenant's schema itself, which all of its tables share."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": f"haulier.schema {tenant}"}
    )


def find(session: Session, tenant: str, name: str) -> Table | None:
    """The declaration in force, or ``None``."""
    kept = session.execute(
        text("SELECT declaration FROM declared_tables WHERE tenant = :tenant AND name = :name"),
        {"tenant": tenant, "name": name},
    ).scalar_one_or_none()
    return None if kept is None else from_declaration(kept)


def names(session: Session, tenant: str) -> list[str]:
    """The names of a tenant's tables, sorted."""
    rows = session.execute(
        text("SELECT name FROM declared_tables WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [row.name for row in rows]


def every(session: Session, tenant: str) -> list[Table]:
    """The declarations in force of all of a tenant's tables, by name."""
    kept = session.execute(
        text("SELECT declaration FROM declared_tables WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [from_declaration(declared) for declared in kept.scalars()]


def put(session: Session, tenant: str, table: Table) -> None:
    """Keep ``table`` as the declaration in force."""
    session.execute(
        text(
            """
            INSERT INTO declared_tables (tenant, name, version, declaration)
            VALUES (:tenant, :name, :version, CAST(:declaration AS jsonb))
            ON CONFLICT (tenant, name) DO UPDATE
                SET version = excluded.version, declaration = excluded.declaration
            """
        ),
        {
            "tenant": tenant,
            "name": table.name,
            "version": table.version,
            "declaration": json.dumps(declaration(table)),
        },
    )


def remove(session: Session, tenant: str, name: str) -> bool:
    """Forget a declaration; whether there was one."""
    removed = session.execute(
        text("DELETE FROM declared_tables WHERE tenant = :tenant AND name = :name RETURNING name"),
        {"tenant": tenant, "name": name},
    ).scalar_one_or_none()
    return removed is not None
