from __future__ import annotations

import gzip
import io
import json
import zipfile
from typing import Any

import pytest
from backports import zstd

from app.domain.errors import JobError
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import MESSY, THINGS, Killed, books, state, stop_after


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    importing = ImportingAny(settings, sessions, objects)
    Tables(sessions).declare("default", THINGS)
    return importing


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


CSV = "id,name,note\n1,é,a;b\n2,two,\n".encode()
LINES = '{"id":1,"name":"é","note":"a;b"}\n{"id":2,"name":"two","note":null}\n'.encode()
ARRAY = '[{"id":1,"name":"é","note":"a;b"},\n {"id":"2","name":"two"}]'.encode()


@pytest.mark.feature("S2-11", "S2-12", "S2-17", "S1-06")
@pytest.mark.parametrize(
    ("body", "config", "seen"),
    [
        (CSV, {}, {"format": "csv", "compression": "none", "delimiter": ",", "encoding": "utf-8"}),
        (CSV.replace(b";", b" ").replace(b",", b";"), {}, {"delimiter": ";", "delimiter_confidence": 1.0}),
        (CSV.replace(b",", b"\t"), {}, {"delimiter": "\t"}),
        (CSV.replace(b",", b"|"), {}, {"delimiter": "|"}),
        (CSV.decode().encode("latin-1"), {"encoding": "auto"}, {"encoding": "latin-1", "encoding_confidence": 0.6}),
        (CSV.decode().encode("utf-16"), {"encoding": "auto"}, {"encoding": "utf-16-le", "encoding_confidence": 1.0}),
        (CSV.decode().encode("utf-16-be"), {"encoding": "auto"}, {"encoding": "utf-16-be"}),
        (gzip.compress(CSV, mtime=0), {}, {"compression": "gzip"}),
        (zstd.compress(CSV[:20]) + zstd.compress(CSV[20:]), {}, {"compression": "zstd"}),
        (zipped({"data.csv": CSV}), {}, {"compression": "zip"}),
        (LINES, {}, {"format": "ndjson"}),
        (gzip.compress(LINES, mtime=0), {"format": "ndjson"}, {"format": "ndjson", "compression": "gzip"}),
        (ARRAY, {"allowed_formats": ["json", "csv"]}, {"format": "json"}),
        (zstd.compress(ARRAY), {"format": "json"}, {"format": "json", "compression": "zstd"}),
    ],
)
def test_a_file_is_known_by_its_content(
    imports: ImportingAny, body: bytes, config: dict[str, Any], seen: dict[str, Any]
) -> None:
    result = imports.load(body, **config)

    assert imports.rows("SELECT id, name FROM t_default.things ORDER BY id") == [(1, "é"), (2, "two")]
    assert {name: result.data[name] for name in seen} == seen


@pytest.mark.feature("S2-13", "S2-14", "S4-115")
@pytest.mark.parametrize(
    ("body", "config"),
    [
        ("1,one,2.5\n2,two,\n", {"header": False}),
        ("one,1\ntwo,2\n", {"header": ["name", "id"]}),
        ("x\none,1\ntwo,2\n", {"header": False, "mapping": {"column_1": "name", "column_2": "id"}, "skip_rows": 1}),
        ("made by\r\n\r\nus\r\nid,name\r\n1,one\r\n2,two\r\n", {"skip_rows": 3}),
        ("id,name,note\n1,one,N/A\n2,two,-\n", {"null_tokens": ["N/A", "-"]}),
        ('{"id":1,"name":"one","x":1}\n{"name":"two","id":2}', {"header": ["id", "name"], "ignore_unknown": True}),
    ],
)
def test_headers_leading_lines_and_words_for_null_are_as_the_config_says(
    imports: ImportingAny, body: str, config: dict[str, Any]
) -> None:
    imports.load(body, **config)

    assert imports.rows("SELECT id, name, note FROM t_default.things ORDER BY id") == [
        (1, "one", None),
        (2, "two", None),
    ]


@pytest.mark.feature("S2-14")
def test_lines_of_the_ledger_are_those_of_the_file_however_many_are_skipped(imports: ImportingAny) -> None:
    imports.load("a\nb\nid,name\n1,one\nx,two\n", skip_rows=2, delimiter=",")

    assert [(line, code) for line, code, *_ in imports.ledger()] == [(5, "value.bigint")]


@pytest.mark.feature("S2-16", "S2-17")
@pytest.mark.parametrize(
    ("body", "config", "code"),
    [
        (CSV, {"max_file_size": 10}, "source.too_large"),
        (CSV, {"allowed_formats": ["json"]}, "source.format_forbidden"),
        (LINES, {"format": "csv"}, "source.format_mismatch"),
        (b"%PDF-1.7", {}, "source.format_unknown"),
        (zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), {}, "source.corrupt"),
        (zipped({"a": CSV, "b": CSV}), {}, "source.zip_members"),
        (zipped({"../a": CSV}), {}, "source.zip_name"),
        (zipped({"a": b"0" * 10**7}), {}, "source.bomb"),
        (zipped({"a": CSV})[:-30], {}, "source.corrupt"),
        (zstd.compress(CSV)[:-4], {}, "source.corrupt"),
        (zstd.compress(b"id,name\n" + b"0" * 10**7), {}, "source.bomb"),
        (b"", {}, "csv.empty"),
        (b'{"id":1,"nmae":"x"}', {}, "csv.header_unknown"),
        (b'{"name":"x"}', {}, "csv.header_missing"),
        (b'[{"id":1,"name":"x"}, nothing]', {}, "json.invalid"),
        ('{"id":1}'.encode("utf-16"), {}, "json.encoding"),
        ('[{"id":1}]'.encode("utf-16"), {}, "json.encoding"),
        ("id,name\n1,a\n".encode("utf-16"), {"format": "ndjson"}, "source.format_mismatch"),
        (zipped({}), {}, "source.zip_members"),
        (b"[]", {}, "csv.header_missing"),
        (b'[{"id":1,"n\\u0000":2}]', {"ignore_unknown": True}, "csv.header_invalid"),
        (b'[{"id":1,"n\\ud800":2}]', {"ignore_unknown": True}, "csv.header_invalid"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_fails_with_its_reason(
    imports: ImportingAny, body: bytes, config: dict[str, Any], code: str
) -> None:
    with pytest.raises(JobError) as raised:
        imports.load(body, **config)

    assert raised.value.code == code


def test_nested_values_go_to_the_ledger_or_the_table_as_json(imports: ImportingAny) -> None:
    result = imports.load('{"id":1,"name":"n","tags":["a","b"],"note":{"x":[1.50]}}\n{"id":2,"name":\n')

    assert imports.rows("SELECT tags, note FROM t_default.things") == [(["a", "b"], '{"x": [1.50]}')]
    assert imports.ledger() == [(2, "json.invalid", None, '{"id":2,"name":')]
    assert books(result) == {"read": 2, "loaded": 1, "failed": 1}


RECORDS = [
    {"id": "x" if n % 6 == 0 else n % 11, "name": f"n{n}", "note": ["é\n", None, {"k": n}][n % 3], "amount": n}
    for n in range(120)
]
MESSY_LINES = "".join(
    "{broken\n" if n % 17 == 3 else "\n" if n % 19 == 0 else json.dumps(record) + "\n"
    for n, record in enumerate(RECORDS)
)
MESSY_ARRAY = json.dumps(
    [n if n % 17 == 3 else record for n, record in enumerate(RECORDS)], indent=1, ensure_ascii=False
)


@pytest.mark.parametrize(
    ("body", "commits"),
    [
        (zstd.compress(MESSY.encode()), 2),
        (zipped({"a": MESSY.encode()}), 3),
        (MESSY_LINES.encode(), 2),
        (gzip.compress(MESSY_LINES.encode(), mtime=0), 5),
        (MESSY_ARRAY.encode(), 2),
        (zipped({"a": MESSY_ARRAY.encode()}), 3),
    ],
    ids=["zstd", "zip", "ndjson", "ndjson.gz", "json", "json.zip"],
)
def test_whatever_the_format_a_killed_import_ends_as_if_undisturbed(
    imports: ImportingAny, body: bytes, commits: int
) -> None:
    whole = imports.submit(body, batch_rows=10, lanes=2)
    imports.run(imports.context(whole, error_budget_rate=1.0))
    expected = state(imports, whole)
    imports.rows("DELETE FROM t_default.things RETURNING id")
    killed = imports.submit(body, batch_rows=10, lanes=2)

    for _ in range(60):
        context = imports.context(killed, batch_rows=3, lanes=1)
        stop_after(context, commits=commits)
        try:
            imports.run(context)
            break
        except Killed:
            continue

    assert state(imports, killed) == expected
    assert context.job.fence > 2
