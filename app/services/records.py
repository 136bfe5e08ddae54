"""Rows of tables by query: pages with opaque cursors, and counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from app.dataplane import pickers
from app.dataplane import query as rows_by_query
from app.dataplane.vql.catalogue import Catalogue, Field, nearest
from app.dataplane.vql.model import Keyword, Query
from app.dataplane.vql.parser import parse
from app.dataplane.vql.values import WrongValueError, equal_value
from app.domain.errors import InvalidRequestError, NotFoundError, Problem
from app.services import row_cursors
from app.services.pickers import Pickers
from app.services.reading import Reading
from app.services.tables import Tables

DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class RecordPage:
    """A page of rows.

    Args:
        rows: By column name, JSON types only; ``numeric`` is text.
        next_cursor: For the next page; ``None`` on the last.
        after: What the cursor holds: the last row's values of the order's terms, for ``search_after``.
    """

    rows: list[dict[str, Any]]
    next_cursor: str | None
    after: list[Any] | None


class Records:
    """The use cases of rows."""

    def __init__(self, tables: Tables, reading: Reading) -> None:
        self._tables = tables
        self._reading = reading
        self._pickers = Pickers(reading.sessions)

    def query(
        self,
        tenant: str,
        table: str,
        vql: dict[str, Any],
        *,
        limit: int | None = None,
        cursor: str | None = None,
        pointer: str = "",
    ) -> RecordPage:
        """The first rows of a query, or those behind ``cursor``.

        Args:
            limit: Rows at most, 1 to 1,000; ``None`` takes the query's own, else 25.
            cursor: ``next_cursor`` of the page before, of the same query.
            pointer: Where ``vql`` stands in the request.

        Raises:
            NotFoundError: The tenant has no such table.
            InvalidRequestError: The query cannot be used (``vql.…``), or took too long (``vql.timeout``).
            MalformedRequestError: ``cursor.invalid``: not a cursor of this query.
        """
        catalogue = Catalogue(self._tables.get(tenant, table))
        query = parse(vql, catalogue, pointer=pointer)
        if cursor is not None:
            query = row_cursors.behind(cursor, vql, query, catalogue)
        limit = _page_rows(limit, query)
        self._make_relation(tenant, catalogue, query)
        with self._reading.transaction(tenant) as session:
            page = rows_by_query.page(session, tenant, catalogue, query, limit=limit)
            if query.populate is not None:
                _populate(session, tenant, catalogue, query, page.rows)
        next_cursor = row_cursors.after_page(query, catalogue, page.after)
        return RecordPage(page.rows, next_cursor, page.after)

    def get(self, tenant: str, table: str, record_id: str) -> dict[str, Any]:
        """The row of a key, as ``query`` gives it.

        Args:
            record_id: The key's value as text; of a key of several columns a JSON array of these, as text.
        Raises:
            NotFoundError: The tenant has no such table, or the table no such row (``record.not_found``).
            InvalidRequestError: ``vql.timeout``.
        """
        catalogue = Catalogue(self._tables.get(tenant, table))
        query = Query(must=_is(catalogue.key_fields(), record_id, table))
        with self._reading.transaction(tenant) as session:
            page = rows_by_query.page(session, tenant, catalogue, query, limit=1)
        if not page.rows:
            raise _no_record(table, f"{record_id!r}")
        return page.rows[0]

    def count(self, tenant: str, table: str, vql: dict[str, Any], *, pointer: str = "") -> int:
        """How many rows meet the query's conditions. Errors as ``query``."""
        catalogue = Catalogue(self._tables.get(tenant, table))
        query = parse(vql, catalogue, pointer=pointer)
        self._make_relation(tenant, catalogue, query)
        with self._reading.transaction(tenant) as session:
            return rows_by_query.count(session, tenant, catalogue, query)

    def filters(self, tenant: str, table: str) -> list[dict[str, Any]]:
        """What a query of the table can filter by: ``filter_key``, ``type`` and the table it stands in."""
        catalogue = Catalogue(self._tables.get(tenant, table))
        return [
            {
                "filter_key": name,
                "type": found.type.value,
                "table": found.relation.table.name if found.relation else table,
            }
            for name, found in catalogue.filters.items()
        ]

    def filter_values(self, tenant: str, table: str, key: str, *, search: str | None, limit: int) -> list[str]:
        """Values of one filter in order, for a picker. Errors as ``query``."""
        catalogue = Catalogue(self._tables.get(tenant, table))
        found = catalogue.filters.get(key)
        if found is None:
            raise InvalidRequestError(
                f"{key!r} is not a filter of {table!r}",
                code="vql.unknown_column",
                hint="Near are: " + ", ".join(nearest(key, catalogue.filters)) + ".",
                problems=(Problem("/filter_key", f"no filter is called {key!r}"),),
            )
        holder = self._tables.get(tenant, found.relation.table.name) if found.relation else catalogue.table
        if found.column.filterable:
            with self._reading.limited() as timeout_s:
                return self._pickers.values(
                    tenant, holder, found.column.name, search=search, limit=limit, timeout_s=timeout_s
                )
        with self._reading.transaction(tenant) as session:
            return pickers.values(session, tenant, holder, found.column, search=search, limit=limit)

    def _make_relation(self, tenant: str, catalogue: Catalogue, query: Query) -> None:
        """Built-in tables are made at their first use, which a filter on their columns is."""
        if catalogue.relation is not None and query.uses_relation:
            self._tables.get(tenant, catalogue.relation.table.name)


def _is(key: Sequence[Field], record_id: str, table: str) -> tuple[Keyword, ...]:
    """That a row has this key."""
    texts: Any = [record_id]
    if len(key) > 1:
        names = ", ".join(field.name for field in key)
        expected = f"of a key of {len(key)} columns the id is a JSON array of their values as text: {names}"
        try:
            texts = json.loads(record_id)
        except ValueError as error:
            raise _no_record(table, f"{record_id!r}: {expected}") from error
        if not isinstance(texts, list) or len(texts) != len(key):
            raise _no_record(table, f"{record_id!r}: {expected}")
    conditions = []
    for field, value in zip(key, texts, strict=True):
        try:
            conditions.append(Keyword(field, (equal_value(field.type, value, textual=True),)))
        except WrongValueError as error:
            raise _no_record(table, f"{record_id!r}: {field.name} is {error}") from error
    return tuple(conditions)


def _no_record(table: str, what: str) -> NotFoundError:
    return NotFoundError(f"table {table!r} has no row {what}", code="record.not_found")


def _page_rows(limit: int | None, query: Query) -> int:
    rows = limit if limit is not None else query.limit or DEFAULT_LIMIT
    if not 1 <= rows <= MAX_LIMIT:
        raise InvalidRequestError(
            f"a page has 1 to {MAX_LIMIT} rows, got limit {rows}",
            code="request.limit_invalid",
            problems=(Problem("/limit", f"expected 1 to {MAX_LIMIT}, got {rows}"),),
        )
    return rows


def _populate(session: Session, tenant: str, catalogue: Catalogue, query: Query, rows: list[dict[str, Any]]) -> None:
    relation = catalogue.relation
    if relation is None or query.populate is None:
        return
    if query.select is not None and all(one.name != relation.column for one in query.select):
        raise InvalidRequestError(
            f"to bring the company along, select {relation.column!r} too",
            code="vql.invalid",
            problems=(Problem("/select_columns", f"expected {relation.column!r} among the columns"),),
        )
    keys = sorted({row[relation.column] for row in rows if row[relation.column] is not None})
    found = rows_by_query.related(session, tenant, relation, keys, query.populate) if keys else {}
    for row in rows:
        row[relation.prefix.rstrip("_")] = found.get(row[relation.column])
