"""An export in parts: where each part begins and ends, and whether its table is still what it was."""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.export_columns import KeyRange, Selection, select_rows, selected
from app.dataplane.tables import qualified
from app.dataplane.vql.compiler import Statement, quoted
from app.domain.errors import JobError
from app.domain.tables import COMPANIES

MAX_PARTS: Final = 1_000


def ranges(
    session: Session, selection: Selection, *, max_rows: int | None, max_bytes: int | None, json: bool
) -> list[KeyRange]:
    """Ranges of the key that tile the selection, at least one.

    Args:
        max_rows: Of one range.
        max_bytes: Of one range's rows before compression; a row that is larger has a range of its own.
        json: Whether rows are written as JSON.
    Raises:
        JobError: ``export.too_many_parts``.
    """
    statement = _ends(selection, max_rows=max_rows, max_bytes=max_bytes, json=json)
    found = session.execute(text(statement.sql), statement.parameters)
    highs = [tuple(row) for row in found]
    if len(highs) >= MAX_PARTS:
        raise JobError(
            f"an export has at most {MAX_PARTS} parts, and this one would have more",
            code="export.too_many_parts",
        )
    lows: list[tuple[str, ...] | None] = [None, *highs]
    return [KeyRange(low, high) for low, high in zip(lows, [*highs, None], strict=True)]


def _ends(selection: Selection, *, max_rows: int | None, max_bytes: int | None, json: bool) -> Statement:
    """The last keys of all ranges but the last one, in order."""
    key = [f"k{number}" for number in range(len(selection.table.key))]
    rows = select_rows(
        selection, columns=[*_keys(selection), f"{_row_bytes(selection, json) if max_bytes else 0} AS size"]
    )
    by_key = f"(ORDER BY {', '.join(key)} ROWS UNBOUNDED PRECEDING)"
    in_rows = f"(n - 1) / {rows.bind(max_rows, 'bigint')}" if max_rows else "0"
    # A bucket holds what begins in it, so the longest row is taken off; a row above half the limit may still pass it.
    room = "greatest({0} - longest, {0} / 2 + 1)".format(rows.bind(max_bytes, "bigint"))
    in_bytes = f"div(total - 1, {room})" if max_bytes else "0"
    rows.sql = (
        f"SELECT {', '.join(f'{name}::text' for name in key)} FROM ("
        f"SELECT *, lead(r) OVER by_n AS next_r, lead(b) OVER by_n AS next_b FROM ("
        f"SELECT {', '.join(key)}, n, {in_rows} AS r, {in_bytes} AS b FROM ("
        f"SELECT *, row_number() OVER {by_key} AS n, sum(size) OVER {by_key} AS total, max(size) OVER () AS longest "
        f"FROM ({rows.sql}) AS found) AS counted) AS numbered WINDOW by_n AS (ORDER BY n)) AS placed "
        "WHERE next_r <> r OR next_b <> b ORDER BY n"
    )
    return rows


def _keys(selection: Selection) -> list[str]:
    return [f"m.{quoted(name)} AS k{number}" for number, name in enumerate(selection.table.key)]


def _row_bytes(selection: Selection, json: bool) -> str:
    # A row's own text form quotes whatever CSV quotes, and more: its length is a bound.
    written = "row_to_json(s)::text" if json else "s::text"
    return f"(SELECT octet_length({written}) + 2 FROM (SELECT {', '.join(selected(selection))}) AS s)"


def fingerprint(session: Session, selection: Selection) -> str:
    """Of the row versions of the tables that are read: another one as soon as a row was added, changed or removed.

    And of the columns as they are declared, which say what a row is in the files. A counter would have every write of
    every import take one row's lock; this reads row headers alone.
    """
    tables = [selection.table.name] + ([COMPANIES.name] if selection.query.uses_relation else [])
    declared = hashlib.sha256(repr((selection.table.columns, selection.columns)).encode()).hexdigest()
    return " ".join([*(_row_versions(session, qualified(selection.tenant, name)) for name in tables), declared])


def _row_versions(session: Session, table: str) -> str:
    found = session.execute(
        text(
            "SELECT count(*)::text || '/' || coalesce(sum(hashtidextended(ctid, xmin::text::bigint)), 0)::text "
            f"FROM {table}"
        )
    )
    return str(found.scalar_one())
