"""The values that a column of a tenant's table holds, for pickers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.tables import qualified, quoted
from app.domain.tables import Column, ColumnType, Table
from app.domain.texts import like_pattern

MOST_BYTES: Final = 1_000
"""Of a value that is kept; nobody picks a longer one from a list, and no index holds it."""


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
        {"pattern": None if search is None else like_pattern(search), "limit": limit},
    )
    return [row.value for row in rows]


def gather(session: Session, tenant: str, table: Table, job_ids: Sequence[UUID] | None) -> None:
    """Keep the values of the table's filterable columns in the rows that these jobs wrote; ``None``: in all rows.

    One statement in one order: two that gather at once wait for each other and never deadlock.
    """
    columns = [column for column in table.columns if column.filterable]
    if not columns:
        return
    found = " UNION ALL ".join(f"SELECT {_constant(one.name)}, {_items(one)}::text" for one in columns)
    session.execute(
        text(
            f"""
            INSERT INTO picker_values (tenant, table_name, column_name, value)
            SELECT DISTINCT :tenant, :table, v.name, v.value
            FROM {qualified(tenant, table.name)} AS m, LATERAL ({found}) AS v (name, value)
            WHERE v.value <> '' AND octet_length(v.value) <= {MOST_BYTES}
            {"" if job_ids is None else "AND m.haulier_job_id = ANY(CAST(:jobs AS uuid[]))"}
            ORDER BY v.name, v.value ON CONFLICT DO NOTHING
            """
        ),
        {"tenant": tenant, "table": table.name, "jobs": None if job_ids is None else list(job_ids)},
    )


def _items(column: Column) -> str:
    name = f"m.{quoted(column.name)}"
    return f"unnest({name})" if column.type is ColumnType.TEXT_ARRAY else name


def _constant(name: str) -> str:
    # Names of columns are checked: small letters, digits and _.
    return f"'{name}'"
