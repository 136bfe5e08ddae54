"""The values that a column of a tenant's table holds, for pickers."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.tables import qualified, quoted
from app.domain.tables import Column, ColumnType, Table


def values(session: Session, tenant: str, table: Table, column: Column, *, search: str | None, limit: int) -> list[str]:
    """Different values of ``column`` in order, those that hold ``search`` (any case) when given, as text."""
    item = f"unnest({quoted(column.name)})" if column.type is ColumnType.TEXT_ARRAY else quoted(column.name)
    rows = session.execute(
        text(
            f"""
            SELECT DISTINCT value::text AS value FROM (
                SELECT {item} AS value FROM {qualified(tenant, table.name)} WHERE {quoted(column.name)} IS NOT NULL
            ) AS found
            WHERE CAST(:pattern AS text) IS NULL OR value::text ILIKE :pattern ORDER BY 1 LIMIT :limit
            """
        ),
        {"pattern": None if search is None else f"%{_literal(search)}%", "limit": limit},
    )
    return [row.value for row in rows]


def _literal(search: str) -> str:
    return search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
