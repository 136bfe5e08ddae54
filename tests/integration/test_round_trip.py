"""Whatever bytes come in, an import's books balance or its error can be kept; whatever texts go out come back."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from app.domain.error_codes import REMEDIES
from app.domain.errors import JobError
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.domain.texts import check_json
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services.runs import describe
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.exports import Exporting
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import THINGS

TEXTS = Table(
    name="texts",
    columns=(Column("id", ColumnType.BIGINT), Column("a", ColumnType.TEXT), Column("b", ColumnType.TEXT)),
    key=("id",),
)
COPIES = Table(name="copies", columns=TEXTS.columns, key=TEXTS.key)

PIECES = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'1a,;\t|\n\r"\\{}[]: \x00\xff\xe9'),
        b"id",
        b"id,name\n",
        b"name",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b'{"id":1,"name":"n"}\n',
        b'{"id":2,"name":"\\u0000"}\n',
        b'{"id":3,"n\\u0000":"\\ud800"}\n',
        b'[{"id":1,"name":"n"},',
        b"2,two\n",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
    ]
)
BODIES = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    importing = ImportingAny(settings, sessions, objects)
    for table in (THINGS, TEXTS, COPIES):
        Tables(sessions).declare("default", table)
    return importing


@tried(max_examples=80)
@given(
    body=BODIES,
    pack=st.sampled_from([bytes, lambda data: gzip.compress(data, mtime=0), zstd.compress]),
    config=st.fixed_dictionaries(
        {},
        optional={
            "encoding": st.sampled_from(["auto", "latin-1", "utf-16"]),
            "header": st.sampled_from([False, ["id", "name"]]),
            "skip_rows": st.integers(0, 2),
            "ignore_unknown": st.just(True),
            "auto_map": st.just({}),
            "validate_only": st.just(True),
        },
    ),
)
@example(body="id,name\n1,n\n".encode("utf-16-le"), pack=bytes, config={})
@example(body=b"id,name\n1,\0\n2,\xff\n", pack=bytes, config={"validate_only": True})
def test_any_bytes_give_books_that_balance_or_an_error_that_can_be_kept(
    imports: ImportingAny, body: bytes, pack: Any, config: dict[str, Any]
) -> None:
    job_id = imports.submit(pack(body), batch_rows=3, **config)

    try:
        result = imports.run(imports.context(job_id))
    except JobError as error:
        with imports.sessions.begin() as session:
            said = describe(error, jobs.get(session, "default", job_id))
        check_json(said, "error", code="test")
        assert said["code"] in REMEDIES
    else:
        check_json(result.data, "result", code="test")
        if "validate_only" not in config:
            books = result.data["books"]
            assert books["read"] == sum(books.values()) - books["read"]


# Whatever Postgres can store: anything but U+0000 and halves of surrogate pairs.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ODD_TEXT = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "\r",
        "\r\n",
        '"',
        '""',
        "\\N",
        "\\.",
        "NULL",
        "a,b;c\td|e",
        "_x000D_",
        "\ufeff",
        "=1+1",
        "1e5",
        "007",
    ]
)
ROWS = st.lists(st.tuples(*[st.none() | ANY_TEXT | ODD_TEXT] * 2), min_size=1, max_size=12)


@pytest.mark.feature("S2-25")
@pytest.mark.parametrize("file_format", ["csv", "ndjson", "json", "xlsx"])
@tried(max_examples=15)
@given(rows=ROWS, compression=st.sampled_from(["none", "gzip", "zstd"]))
@example(rows=[(one, None) for one in ("", " ", "\r", "\ufeff", "\\.", "007", "=1+1", '"')], compression="none")
def test_any_texts_that_are_exported_and_imported_are_the_same(
    imports: ImportingAny, rows: list[tuple[str | None, str | None]], compression: str, file_format: str
) -> None:
    imports.rows("DELETE FROM t_default.texts RETURNING id")
    imports.rows("DELETE FROM t_default.copies RETURNING id")
    for number, (a, b) in enumerate(rows):
        imports.rows("INSERT INTO t_default.texts (id, a, b) VALUES (:id, :a, :b) RETURNING id", id=number, a=a, b=b)
    packed = "none" if file_format == "xlsx" else compression

    exporting = Exporting(imports.settings, imports.sessions, imports.objects)
    exported = exporting.export("texts", format=file_format, compression=packed)
    place = {"s3": {"key": exported.data["s3_key"], "bucket": exported.data["s3_bucket"]}}
    job_id = imports.submit_config({"source": place, "table": "copies", "empty_as": "text"})
    result = imports.run(imports.context(job_id))

    # CSV and sheets do not tell empty text from nothing.
    empty = {"csv": {None: ""}, "xlsx": {"": None}}.get(file_format, {})
    kept = [(number, *(empty.get(one, one) for one in row)) for number, row in enumerate(rows)]
    assert imports.rows("SELECT id, a, b FROM t_default.copies ORDER BY id") == kept
    assert result.data["books"]["loaded"] == len(rows)
