"""Parquet: values as exact as the format can hold, row groups cut between rows, a clear answer without pyarrow."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from sqlalchemy import text

from app.dataplane import parquet
from app.dataplane.export import ExportStream, copy_as
from app.dataplane.vql.compiler import Statement
from app.domain.errors import InvalidRequestError, JobError
from app.domain.jobs import SubmitJob
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.submissions import Checks, TenantSubmission
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.factories import registry
from tests.integration.exports import Exporting

THINGS = Table(
    "things",
    (
        Column("id", ColumnType.BIGINT),
        Column("label", ColumnType.TEXT),
        Column("price", ColumnType.NUMERIC),
        Column("ratio", ColumnType.DOUBLE),
        Column("born", ColumnType.DATE),
        Column("seen", ColumnType.TIMESTAMPTZ),
        Column("good", ColumnType.BOOLEAN),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("facts", ColumnType.JSON),
    ),
    ("id",),
)
ROWS = """
    INSERT INTO t_default.things (id, label, price, ratio, born, seen, good, tags, facts) VALUES
    (1, E'a "b",\\nc', 12345678901234567890.50, 'Infinity', '0044-03-15 BC', '2026-01-31 12:00:00.000001+01', true,
     ARRAY['x,y', NULL], '{"a": [1]}'),
    (2, '', NULL, -0.5, '9999-12-31', '1969-12-31 23:59:59+00', false, NULL, NULL),
    (9007199254740993, NULL, 0.1, NULL, NULL, NULL, NULL, ARRAY[]::text[], 'null')
"""
EXPECTED: list[tuple[Any, ...]] = [
    (
        1,
        'a "b",\nc',
        "12345678901234567890.50",
        float("inf"),
        None,
        datetime(2026, 1, 31, 11, 0, 0, 1, tzinfo=UTC),
        True,
        '["x,y",null]',
        '{"a": [1]}',
    ),
    (2, "", None, -0.5, date(9999, 12, 31), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), False, None, None),
    (9_007_199_254_740_993, None, "0.1", None, None, None, None, "[]", "null"),
]


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    Tables(sessions).declare("default", THINGS)
    return Exporting(settings, sessions, S3Store(settings))


def table_of(body: bytes) -> Any:
    return pytest.importorskip("pyarrow.parquet").read_table(io.BytesIO(body))


ORDER = {"order_by": [{"order_by": "id"}]}


def test_every_value_is_what_the_table_holds(exporting: Exporting, sessions: Sessions) -> None:
    pytest.importorskip("pyarrow")
    with sessions.begin() as session:
        session.execute(text(ROWS))

    result = exporting.export("things", format="parquet", vql=ORDER)

    found = table_of(exporting.body(result))
    days = found.column("born").cast("int32").to_pylist()
    rows = [tuple(row.values()) for row in found.drop_columns("born").to_pylist()]
    assert found.column_names == list(THINGS.column_names)
    assert rows == [row[:4] + row[5:] for row in EXPECTED]
    assert days == [-735_160, (date(9999, 12, 31) - date(1970, 1, 1)).days, None]
    assert result.data["s3_key"].endswith(".parquet")


def test_groups_and_parts_are_cut_between_rows(
    exporting: Exporting, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "GROUP_BYTES", 4_096)
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.things (id, label) SELECT g, repeat(E'\"\\n,', g % 50 * 30) "
                "FROM generate_series(1, 3000) AS g"
            )
        )

    result = exporting.export("things", format="parquet", max_rows_per_part=1_000, parallel=2)

    bodies = [exporting.read(part["key"]) for part in exporting.manifest(result)["parts"]]
    rows = [row for body in bodies for row in table_of(body).select(["id", "label"]).to_pylist()]
    assert [len(table_of(body)) for body in bodies] == [1_000] * 3
    assert all(read.ParquetFile(io.BytesIO(body)).num_row_groups > 1 for body in bodies)
    assert rows == [{"id": number, "label": '"\n,' * (number % 50 * 30)} for number in range(1, 3_001)]


# Whatever Postgres can store: anything but U+0000 and halves of surrogate pairs.
TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))
ODD_TEXTS = st.sampled_from(
    [
        "",
        "\b",
        "\\",
        "\\b",
        "\\2",
        "\x02",
        "\\\x02",
        "\\\\n\n",
        "\r\n\t\v\f",
        "\ufeff",
        '"',
        "'",
        " ",
        r"\N",
        "NULL",
        "\x1a",
    ]
)
ANY_TEXTS = st.one_of(TEXTS, ODD_TEXTS)
ANY_ROWS = st.lists(st.tuples(ANY_TEXTS, st.lists(ANY_TEXTS, max_size=3), ANY_TEXTS), max_size=12)


class Kept:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.body = b""

    def write(self, data: bytes, /) -> None:
        self.body += data


@tried(max_examples=100)
@given(ANY_ROWS, st.sampled_from([1, 40, 2**20]), st.integers(1, 3))
@example([(one, [one], one) for one in ("\ufeff", "\x02", "\\\\n\n", "\b", None)], 1, 1)
@example([(None, [], None), ("", [None, ""], "")], 1, 3)
def test_any_texts_come_back_from_blocks_of_any_size(
    sessions: Sessions, rows: list[tuple[Any, ...]], block_bytes: int, width: int
) -> None:
    pytest.importorskip("pyarrow")
    kinds = (ColumnType.TEXT, ColumnType.TEXT_ARRAY, ColumnType.JSON)
    columns = [Column(kind.name, kind) for kind in kinds][:width]
    came = [{"n": n, **dict(zip("abc", row, strict=True))} for n, row in enumerate(rows)]
    chosen = ", ".join(f'm.{name} AS "{column.name}"' for name, column in zip("abc", columns, strict=False))
    source = "json_to_recordset(CAST(:rows AS json)) AS m(n int, a text, b text[], c json)"
    select = Statement(f"SELECT {chosen} FROM {source} ORDER BY m.n", {"rows": json.dumps(came)})
    kept = Kept()
    stream = ExportStream(kept, compression="none", between=lambda: None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parquet, "BLOCK_BYTES", block_bytes)
        writer = parquet.ParquetFile(stream, columns)
    with sessions.begin() as session:
        copy_as(session, writer.statement(select), stream, writer.options, into=writer.into)
    writer.finish()
    stream.finish()
    writer.drop()

    found = [tuple(row.values()) for row in table_of(kept.body).to_pylist()]
    texts = [tuple(json.loads(one) if place and one else one for place, one in enumerate(row)) for row in found]
    assert texts == [row[:width] for row in rows]
    assert writer.rows == len(rows)


def test_the_same_rows_make_the_same_bytes(exporting: Exporting, sessions: Sessions) -> None:
    pytest.importorskip("pyarrow")
    with sessions.begin() as session:
        session.execute(text(ROWS))

    first, second = (exporting.body(exporting.export("things", format="parquet", vql=ORDER)) for _ in range(2))

    assert first == second


def test_an_export_that_fails_on_its_way_leaves_no_thread(exporting: Exporting, sessions: Sessions) -> None:
    pytest.importorskip("pyarrow")
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.things (id, label, seen) SELECT g, repeat('x', 1000), "
                "CASE WHEN g = 4000 THEN 'infinity'::timestamptz END FROM generate_series(1, 4000) AS g"
            )
        )

    with pytest.raises(JobError) as caught:
        exporting.export("things", format="parquet", vql=ORDER)

    assert caught.value.code == "export.query_failed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("parquet")]


def test_an_empty_table_is_a_file_with_its_columns(exporting: Exporting) -> None:
    pytest.importorskip("pyarrow")

    found = table_of(exporting.body(exporting.export("things", format="parquet")))

    assert (found.num_rows, found.column_names) == (0, list(THINGS.column_names))


@pytest.mark.parametrize(
    ("config", "pointer"),
    [({}, "/config/format"), ({"compression": "gzip"}, "/config"), ({"max_bytes_per_part": 5_000}, "/config")],
)
def test_what_cannot_be_written_is_refused_with_what_to_do(
    exporting: Exporting, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], pointer: str
) -> None:
    monkeypatch.setattr(parquet, "is_there", lambda: False)
    submission = TenantSubmission("default", settings=exporting.settings, sessions=sessions, tables=Tables(sessions))
    request = SubmitJob("default", "export", {"table": "things", "format": "parquet", **config}, "test")

    with pytest.raises(InvalidRequestError) as caught:
        Checks(registry(), lambda _: submission).checked(request)

    assert caught.value.problems[0].pointer == pointer
    assert "parquet" in caught.value.problems[0].detail
