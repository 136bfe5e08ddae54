"""Reading rows of users' tables by a query: pages as JSON, counts, and the statement of an export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.tables import qualified
from app.dataplane.vql.catalogue import Catalogue, Field, Relation
from app.dataplane.vql.compiler import Place, Statement, column_sql, compile_select, quoted
from app.dataplane.vql.model import Order, Query, total_order
from app.domain.tables import ColumnType, Table

_HIDDEN = "haulier_order_"
"""Columns of a page that only its cursor needs; no declared column starts with this."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and where the next ones begin.

    Args:
        rows: By column name, JSON types only; ``numeric`` is text, so that no digit is lost.
        after: The last row's values of the order's terms when more rows follow, else ``None``.
    """

    rows: list[dict[str, Any]]
    after: list[Any] | None


def begin_reading(session: Session, *, timeout_s: float, role: str | None = None) -> None:
    """Make the transaction, which must be new, read-only, and end its statements after ``timeout_s`` seconds.

    Args:
        role: Its statements have this role's rights, not the connection's.
    """
    session.execute(text("SET TRANSACTION READ ONLY"))
    limit = {"limit": f"{max(1, int(timeout_s * 1000))}ms"}
    if role is None:
        session.execute(text("SELECT set_config('statement_timeout', :limit, true)"), limit)
        return
    session.execute(
        text("SELECT set_config('statement_timeout', :limit, true), set_config('role', :role, true)"),
        {**limit, "role": role},
    )


def page(
    session: Session,
    tenant: str,
    catalogue: Catalogue,
    query: Query,
    *,
    limit: int,
    place: Place | None = None,
    more: Callable[[Statement], Iterable[str]] | None = None,
) -> Page:
    """The first ``limit`` rows of ``query`` behind its ``after``, or its page of that many.

    Args:
        place: Where the table lies that is no user's table.
        more: As for ``compile_select``.
    """
    order = total_order(query.order, catalogue.key_fields())
    fields = query.select or tuple(catalogue.own.values())
    hidden = [f"{column_sql(term.field)}{_exact(term.field)} AS {_HIDDEN}{n}" for n, term in enumerate(order)]
    statement = compile_select(
        query,
        catalogue.table.name,
        place or _place(tenant),
        columns=[f"{column_sql(one)}{_exact(one)} AS {quoted(one.name)}" for one in fields] + hidden,
        more=more,
        order=order,
        limit=limit + 1,
        offset=(query.page - 1) * limit if query.page else 0,
    )
    rows = _as_json(session, statement)
    keys = [[row.pop(f"{_HIDDEN}{n}") for n in range(len(order))] for row in rows]
    return Page(rows[:limit], keys[limit - 1] if len(rows) > limit else None)


def count(session: Session, tenant: str, catalogue: Catalogue, query: Query) -> int:
    """How many rows meet the query's conditions, whatever its limit."""
    statement = compile_select(query, catalogue.table.name, _place(tenant), columns=["count(*)"], order=(), limit=None)
    return int(session.execute(text(statement.sql), statement.parameters).scalar_one())


def related(
    session: Session, tenant: str, relation: Relation, keys: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Rows of the related table by their key; keys without a row are left out."""
    catalogue = Catalogue(relation.table)
    fields = [catalogue.own[name] for name in columns]
    selected = [f"{column_sql(one)}{_exact(one)} AS {quoted(one.name)}" for one in fields]
    statement = Statement()
    statement.sql = (
        f"SELECT {', '.join([*selected, f'm.{quoted(relation.key)} AS {_HIDDEN}0'])} "
        f"FROM {qualified(tenant, relation.table.name)} AS m "
        f"WHERE m.{quoted(relation.key)} = ANY({statement.bind(list(keys), 'uuid[]')})"
    )
    return {row.pop(f"{_HIDDEN}0"): row for row in _as_json(session, statement)}


def export_statement(tenant: str, table: Table, query: Query) -> Statement:
    """The one SELECT of an export.

    Args:
        tenant: Whose table it is.
        table: The table.
        query: Its ``select`` says the columns and their order. Rows come in the query's order, or as Postgres finds
            them when it has none; a limit without an order takes the first by the key.
    """
    catalogue = Catalogue(table)
    order: tuple[Order, ...] = ()
    if query.order or query.limit is not None or query.after is not None:
        order = total_order(query.order, catalogue.key_fields())
    return compile_select(
        query,
        table.name,
        _place(tenant),
        columns=[column_sql(one) for one in query.select or tuple(catalogue.own.values())],
        order=order,
        limit=query.limit,
    )


def estimated_rows(session: Session, statement: Statement) -> int:
    """The planner's guess of how many rows ``statement`` gives; of the right order at best."""
    plan = session.execute(text(f"EXPLAIN (FORMAT JSON) {statement.sql}"), statement.parameters).scalar_one()
    return int((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])


def _place(tenant: str) -> Place:
    place: Callable[[str], str] = lambda table: qualified(tenant, table)  # noqa: E731 - a def would need a third name
    return place


def _exact(one: Field) -> str:
    # JSON's numbers are read as binary fractions, which lose digits of numeric.
    return "::text" if one.type is ColumnType.NUMERIC else ""


def _as_json(session: Session, statement: Statement) -> list[dict[str, Any]]:
    # Postgres writes the JSON: it knows every value that it can hold, such as 'infinity', and Python does not.
    rows = session.execute(
        text(f"SELECT row_to_json(q)::text AS row FROM ({statement.sql}) AS q"), statement.parameters
    )
    return [json.loads(row.row) for row in rows]
