"""Lines of JSON beside what Postgres's own ``row_to_json`` makes of the same rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from sqlalchemy import text

from app.dataplane.export import ExportStream, copy_as
from app.dataplane.export_formats import row_writer
from app.dataplane.vql.compiler import Statement
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables

KINDS = Table(
    name="kinds",
    columns=tuple(Column(kind.name.lower(), kind) for kind in ColumnType),
    key=("bigint",),
)
ROWS: list[dict[str, Any]] = [
    {"bigint": 1},
    {"bigint": 2, "text": 'a "b", c\\d\n\x02\x08\v\t', "date": "infinity", "timestamptz": "-infinity", "boolean": True},
    {"bigint": 3, "text": "null", "numeric": "NaN", "double": "NaN", "json": None, "boolean": False},
    {"bigint": 4, "text": r"\N", "numeric": "-Infinity", "double": "Infinity", "json": {"a": ["\\N", '"\n', None]}},
    {"bigint": 5, "date": "0044-03-15 BC", "timestamptz": "0044-03-15 12:00:00.5+01 BC", "text_array": []},
    {"bigint": 6, "date": "12026-01-31", "timestamptz": "12026-01-31 23:59:59.123456+00", "text_array": [None, "null"]},
    {"bigint": -7, "numeric": "1.10", "double": 1e-300, "integer": -1, "text_array": ['a"b', "c\\d\n", "\v", "x,y"]},
    {"bigint": 8, "uuid": "01890a5d-ac96-774b-bcce-b302099a8057", "numeric": "1e30", "double": 0.1, "json": "\\v"},
]
TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))
ANY_ROWS = st.lists(
    st.fixed_dictionaries(
        {"bigint": st.integers(-(2**63), 2**63 - 1), "text": TEXTS, "text_array": st.lists(TEXTS, max_size=3)},
        optional={"json": st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3), max_leaves=3)},
    ),
    max_size=8,
)


@pytest.fixture
def kinds(sessions: Sessions) -> Sessions:
    Tables(sessions).declare("default", KINDS)
    return sessions


class Kept:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.body = b""

    def write(self, data: bytes, /) -> None:
        self.body += data


def both(sessions: Sessions, rows: list[dict[str, Any]], style: str = "ISO") -> tuple[bytes, bytes]:
    """Our lines and Postgres's."""
    columns = ", ".join(f'm."{name}"' for name in KINDS.column_names)
    source = "json_populate_recordset(NULL::t_default.kinds, CAST(:rows AS json)) AS m"
    select = Statement(f"SELECT {columns} FROM {source}", {"rows": json.dumps(rows)})
    kept = Kept()
    stream = ExportStream(kept, compression="none", between=lambda: None)
    writer = row_writer("ndjson", stream, KINDS.columns, header=False)
    with sessions.begin() as session:
        theirs = session.execute(text(f"SELECT row_to_json(q)::text FROM ({select.sql}) AS q"), select.parameters)
        expected = "".join(f"{line}\n" for line in theirs.scalars()).encode()
        session.execute(text(f"SET LOCAL DateStyle = '{style}'"))
        copied = copy_as(session, writer.statement(select), stream, writer.options, into=writer.into)
        writer.finish()
    stream.finish()
    assert copied == len(rows)
    return kept.body, expected


@pytest.mark.parametrize("style", ["ISO", "German"])
def test_values_of_every_type_are_spelled_as_postgres_spells_them(kinds: Sessions, style: str) -> None:
    ours, theirs = both(kinds, ROWS, style)

    assert ours == theirs


@tried(max_examples=40)
@given(ANY_ROWS)
def test_any_rows_are_spelled_as_postgres_spells_them(kinds: Sessions, rows: list[dict[str, Any]]) -> None:
    ours, theirs = both(kinds, rows)

    assert ours == theirs
