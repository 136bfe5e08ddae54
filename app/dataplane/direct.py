"""Rows of a request into a table: the coercion, keys and statements of imports, without a file, books or checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.batches import Encoded, Encoder
from app.dataplane.books import FATES
from app.dataplane.chunks import Chunk
from app.dataplane.companions import Companions
from app.dataplane.faults import Fault
from app.dataplane.grammar import Refused
from app.dataplane.mapping import Columns
from app.dataplane.merging import Counts, Merger, Rows, Target, companion_counters
from app.dataplane.plan import Mode
from app.domain.errors import InvalidRequestError, Problem, segment
from app.domain.tables import Column, ColumnType, Table

_MOST_PROBLEMS: Final = 20
_PLURAL: Final = {list: "a list", dict: "an object"}

_Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that fill the same columns.

    Args:
        columns: Of an encoded row; ``companion_columns`` of the row beside it.
    """

    encoded: Encoded
    columns: tuple[str, ...]
    companion_columns: tuple[str, ...]

    @property
    def is_distinct(self) -> bool:
        """Whether no key stands twice among the rows, for sure."""
        keys = self.encoded.keys
        return keys is not None and len(set(keys)) == len(keys)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows as they will be written: pieces in their order, and the refused rows by place."""

    pieces: list[Piece]
    faults: dict[int, Fault]

    def keys(self) -> dict[int, bytes]:
        """What each good row is known by, where we can tell."""
        return {
            place: key
            for piece in self.pieces
            for place, key in zip(piece.encoded.members, piece.encoded.keys or (), strict=False)
        }


def prepare(rows: Sequence[_Values], table: Table, companions: Companions | None, *, pointer: str) -> Prepared:
    """Check and encode rows; a column that a row lacks keeps its value.

    Args:
        rows: By column name or alias, JSON values; ``None`` and empty text are NULL.
        companions: What comes beside the rows, when that is wanted.
        pointer: Where ``rows`` stands in the request.
    Raises:
        InvalidRequestError: ``upsert.column_invalid``: no column is called so, or a row has one twice.
    """
    columns = Columns(table, companions)
    named = _named(rows, columns, pointer)
    by_columns: dict[frozenset[str], list[int]] = {}
    for place, row in enumerate(named):
        by_columns.setdefault(frozenset(row), []).append(place)
    prepared = _encoded(named, by_columns.values(), columns)
    if _may_recur_across(prepared.pieces):
        # Then the order of the rows decides, so only neighbours may be written together.
        runs = [list(run) for _, run in groupby(range(len(named)), key=lambda place: frozenset(named[place]))]
        prepared = _encoded(named, runs, columns)
    return prepared


def _named(rows: Sequence[_Values], columns: Columns, pointer: str) -> list[_Values]:
    """The rows by the names of columns."""
    problems: list[Problem] = []
    named = []
    for place, row in enumerate(rows):
        values: _Values = {}
        for name, value in row.items():
            at = f"{pointer}/{place}/{segment(name)}"
            column = columns.named(name)
            if column is None:
                detail = f"{name!r} is no column of {columns.table.name!r}. {columns.nearest(name)}"
                problems.append(Problem(at, detail.strip()))
            elif column in values:
                problems.append(Problem(at, f"column {column!r} stands twice in the row, also by another name"))
            else:
                values[column] = value
        named.append(values)
        if len(problems) >= _MOST_PROBLEMS:
            break
    if problems:
        raise InvalidRequestError(
            "the rows name columns that cannot be written",
            code="upsert.column_invalid",
            problems=tuple(problems[:_MOST_PROBLEMS]),
        )
    return named


def _may_recur_across(pieces: Sequence[Piece]) -> bool:
    """Whether a key may stand in two pieces."""
    if len(pieces) < 2:
        return False
    known = [piece.encoded.keys for piece in pieces]
    keys = [set(keys) for keys in known if keys is not None]
    return len(keys) < len(known) or len(set().union(*keys)) < sum(map(len, keys))


def _encoded(rows: Sequence[_Values], groups: Iterable[Sequence[int]], columns: Columns) -> Prepared:
    faults: dict[int, Fault] = {}
    pieces = []
    for places in groups:
        found = {name: position for position, name in enumerate(rows[places[0]])}
        mapped = columns.mapped(found)
        missing = columns.missing(mapped)
        if missing:
            faults.update((place, _missing(missing, columns.table)) for place in places)
            continue
        encoder = Encoder(mapped, columns.table, columns.companions)
        chunk = _chunk(rows, places, list(found), columns, faults)
        encoded = encoder.encode_one(chunk)
        faults.update(encoded.faults)
        pieces.append(Piece(encoded, encoder.columns, encoder.companion_columns))
    return Prepared(pieces, faults)


def _missing(missing: Sequence[str], table: Table) -> Fault:
    made = f", nor a value of {', '.join(table.generated_key)} to make it from" if table.generated_key else ""
    return Fault("value.required", f"{', '.join(missing)} is required, got none{made}", missing[0])


def _chunk(
    rows: Sequence[_Values],
    places: Sequence[int],
    names: Sequence[str],
    columns: Columns,
    faults: dict[int, Fault],
) -> Chunk:
    """The rows as a reader of a file would give them; those whose values cannot be text at all join ``faults``."""
    fields = [columns.column(name) for name in names]
    lines, members = [], []
    for place in places:
        try:
            lines.append([_field(rows[place][column.name], column) for column in fields])
        except _Unfit as unfit:
            faults[place] = unfit.fault
        else:
            members.append(place)
    return Chunk(
        data=b"",
        first_byte=0,
        first_line=0,
        count=len(members),
        columns=[list(column) for column in zip(*lines, strict=True)] if lines else [[] for _ in fields],
        members=members,
        faults={},
        blanks=[],
        lines=0,
    )


class _Unfit(Exception):  # noqa: N818 - it is an answer, caught a few lines on
    """A value cannot be written as a field."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _field(value: Any, column: Column) -> bytes:
    """A JSON value as a file would have it."""
    try:
        return _text(value, column).encode()
    except UnicodeEncodeError:
        refused = Refused("value.encoding", "Unicode text", "half of a surrogate pair")
    except Refused as error:
        refused = error
    message = f"{column.name}: expected {refused.expected}, got {refused.came}"
    raise _Unfit(Fault(refused.code, message, column.name))


def _text(value: Any, column: Column) -> str:
    if value is None:
        return ""
    if column.type is ColumnType.JSON:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        if "\0" in value:
            raise Refused("value.nul", "text", "a NUL character, which no text may hold")
        return value
    if isinstance(value, list | dict) and not (isinstance(value, list) and column.type is ColumnType.TEXT_ARRAY):
        code = "array" if column.type is ColumnType.TEXT_ARRAY else column.type.value
        raise Refused(f"value.{code}", f"a value of type {column.type.value}", _PLURAL[type(value)])
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of rows: ``FATES`` and the counters of companions, and those that Postgres refused, by place."""

    counts: Counts
    refused: Mapping[int, Fault]


def write(
    session: Session,
    tenant: str,
    table: Table,
    prepared: Prepared,
    *,
    mode: Mode,
    companions: Table | None,
    timeout_s: float,
) -> Written:
    """Write the rows in the session's transaction, which must be new.

    Args:
        companions: The table of the rows beside them.
        timeout_s: The longest that one statement may take, waiting for locks included.
    """
    beside = None if companions is None else Target(tenant, companions, (), Mode.UPSERT, None)
    counts = dict.fromkeys((*FATES, *(companion_counters(beside) if beside else ())), 0)
    refused: dict[int, Fault] = {}
    session.execute(
        text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": f"{max(1, int(timeout_s * 1000))}ms"}
    )
    for piece in prepared.pieces:
        encoded = piece.encoded
        if not encoded.rows:
            continue
        merger = Merger(
            Target(tenant, table, piece.columns, mode, None),
            Target(tenant, companions, piece.companion_columns, Mode.UPSERT, None)
            if companions and piece.companion_columns
            else None,
            _go_on,
        )
        merger.prepare(session)
        rows = Rows(encoded.rows, encoded.members, encoded.companions)
        refused.update(merger.merge_by_halves(session, rows, counts, distinct=piece.is_distinct))
    return Written(counts, refused)


def _go_on() -> None:
    """Nothing stops a request's rows but its timeout."""
