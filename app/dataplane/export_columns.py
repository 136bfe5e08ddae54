"""Which columns an export's file has, and the SELECT that gives its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.tables import qualified
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.compiler import Statement, compile_select, quoted
from app.dataplane.vql.model import Order, Query, total_order
from app.domain.tables import SYSTEM_COLUMNS, Column, ColumnType, Table

_SYSTEM_TYPES: Final = (ColumnType.TIMESTAMPTZ, ColumnType.TIMESTAMPTZ, ColumnType.UUID)
_FORMULA: Final = "'^[=+\\-@\\t\\r\\n＝＋－＠]'"
_PLAIN_NUMBER: Final = "'^[+-]?[0-9]+([.][0-9]+)?$'"


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Rows whose key is above ``low`` and not above ``high``, each the key's values as text; ``None`` is no bound."""

    low: tuple[str, ...] | None = None
    high: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is exported.

    Args:
        tenant: Whose table it is.
        columns: Of the file, in order.
        query: Its conditions, order and limit count; its columns are in ``columns``.
        valid_only: Leave out rows that break the declaration, which may have been stricter since they came.
        spreadsheet_safe: Put ``'`` before a text that a spreadsheet would take for a formula.
    """

    tenant: str
    table: Table
    columns: tuple[Column, ...]
    query: Query
    valid_only: bool = False
    spreadsheet_safe: bool = False


def columns_of(table: Table, query: Query, *, with_key: bool, with_metadata: bool) -> tuple[Column, ...]:
    """The columns that the query selects, all when it says none; the key before and the system's behind if wanted."""
    chosen = table.columns if query.select is None else tuple(one.column for one in query.select)
    named = {column.name for column in chosen}
    key = tuple(column for column in table.columns if column.name in table.key and column.name not in named)
    system = tuple(Column(name, kind) for name, kind in zip(SYSTEM_COLUMNS, _SYSTEM_TYPES, strict=True))
    return (key if with_key else ()) + chosen + (system if with_metadata else ())


def select_rows(selection: Selection, within: KeyRange | None = None, *, columns: list[str] | None = None) -> Statement:
    """The SELECT of the rows.

    Args:
        within: Only rows whose keys lie there, in the key's order.
        columns: Others than the file's, in SQL.
    """

    def more(statement: Statement) -> Iterator[str]:
        if selection.valid_only:
            yield _valid(selection.table)
        if within is not None:
            yield from _between(selection.table, within, statement)

    query = selection.query
    order: tuple[Order, ...] = ()
    if within is not None or query.order or query.limit is not None or query.after is not None:
        order = total_order(query.order, Catalogue(selection.table).key_fields())
    return compile_select(
        query,
        selection.table.name,
        lambda name: qualified(selection.tenant, name),
        columns=columns or selected(selection),
        order=order,
        limit=query.limit,
        more=more,
    )


def count_invalid(session: Session, selection: Selection) -> int:
    """How many rows meet the query's conditions and break the declaration."""
    statement = compile_select(
        selection.query,
        selection.table.name,
        lambda name: qualified(selection.tenant, name),
        columns=["count(*)"],
        order=(),
        limit=None,
        more=lambda _: [f"({_valid(selection.table)}) IS NOT TRUE"],
    )
    return int(session.execute(text(statement.sql), statement.parameters).scalar_one())


def selected(selection: Selection) -> list[str]:
    """The file's columns in SQL, each under its name."""
    return [_selected(column, safe=selection.spreadsheet_safe) for column in selection.columns]


def _selected(column: Column, *, safe: bool) -> str:
    name = quoted(column.name)
    if not safe or column.type is not ColumnType.TEXT:
        return f"m.{name}"
    formula = f"m.{name} ~ {_FORMULA} AND m.{name} !~ {_PLAIN_NUMBER}"
    return f"CASE WHEN {formula} THEN '''' || m.{name} ELSE m.{name} END AS {name}"


def _valid(table: Table) -> str:
    rules = []
    for column in table.columns:
        name = f"m.{quoted(column.name)}"
        if column.required:
            rules.append(f"{name} IS NOT NULL")
        if column.max_length is not None:
            rules.append(f"({name} IS NULL OR char_length({name}) <= {column.max_length})")
        if column.format == "email":
            rules.append(f"({name} IS NULL OR {name} ~ '^[^@]+@[^@]+$')")
    return " AND ".join(rules) or "TRUE"


def _between(table: Table, within: KeyRange, statement: Statement) -> Iterator[str]:
    types = [column.type.sql for name in table.key if (column := table.column(name)) is not None]
    key = ", ".join(f"m.{quoted(name)}" for name in table.key)

    def bound(values: Sequence[str]) -> str:
        return ", ".join(statement.bind(value, kind) for value, kind in zip(values, types, strict=True))

    if within.low is not None:
        yield f"({key}) > ({bound(within.low)})"
    if within.high is not None:
        yield f"({key}) <= ({bound(within.high)})"
