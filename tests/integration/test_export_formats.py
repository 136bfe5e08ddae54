"""The job type ``export``: what its files hold in every format, what they are called, and what proves them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text

from app.cli.main import main
from app.dataplane.compressors import zstd
from app.domain.errors import InvalidRequestError, JobError
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.tables import Column, ColumnType, Table
from app.persistence import artifacts
from app.persistence.sessions import Sessions
from app.services.submissions import Checks, TenantSubmission
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.factories import registry
from tests.integration.exports import Exporting

SECRET = "a secret of the installation"
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"

THINGS = Table(
    name="things",
    columns=(
        Column("id", ColumnType.BIGINT),
        Column("label", ColumnType.TEXT, required=True, max_length=12),
        Column("email", ColumnType.TEXT, format="email"),
        Column("price", ColumnType.NUMERIC),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("seen", ColumnType.TIMESTAMPTZ),
        Column("good", ColumnType.BOOLEAN),
        Column("facts", ColumnType.JSON),
    ),
    key=("id",),
)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "label": 'a "b", c\\d', "price": "1.10", "tags": ["x,y", None], "good": True, "facts": {"a": ["ü\n"]}},
    {"id": 2, "label": "two\nlines\r\n", "email": "", "seen": "2026-01-31 12:00:00+00", "good": False},
    {"id": 9_007_199_254_740_993, "label": "<&>_x0041_\x02😀", "email": "a@b", "price": "12345678901234567890.5"},
]


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings, tmp_path: Path) -> Exporting:
    ours = settings.model_copy(update={"secret_key": SecretStr(SECRET), "export_root": tmp_path})
    Tables(sessions).declare("default", THINGS)
    return Exporting(ours, sessions, S3Store(settings))


def add(sessions: Sessions, rows: list[dict[str, Any]]) -> None:
    came = {"haulier_created_at": "2026-01-01 00:00+00", "haulier_updated_at": "2026-01-01 00:00+00"}
    insert = """
        INSERT INTO t_default.things
        SELECT * FROM json_populate_recordset(NULL::t_default.things, CAST(:rows AS json))
    """
    with sessions.begin() as session:
        session.execute(text(insert), {"rows": json.dumps([{**came, **row} for row in rows])})


def cells(body: bytes, sheet: int = 1) -> list[list[str | None]]:
    """A sheet's cells as text; ``None`` for an empty one."""
    root = ElementTree.fromstring(zipfile.ZipFile(io.BytesIO(body)).read(f"xl/worksheets/sheet{sheet}.xml"))
    rows = root.findall(f"./{_MAIN}sheetData/{_MAIN}row")
    return [["".join(cell.itertext()) if len(cell) else None for cell in row] for row in rows]


def in_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in THINGS.column_names} for row in rows]


EXPECTED = [
    {**in_json(ROWS)[0], "price": 1.1},
    {**in_json(ROWS)[1], "seen": "2026-01-31T12:00:00+00:00"},
    {**in_json(ROWS)[2], "price": 12345678901234567890.5},
]


@pytest.mark.feature("S2-25")
def test_each_line_of_ndjson_is_a_row_as_postgres_spells_it(exporting: Exporting, sessions: Sessions) -> None:
    add(sessions, ROWS)

    body = exporting.body(exporting.export("things", format="ndjson"))

    lines = body.decode().splitlines()
    assert [json.loads(line) for line in lines] == EXPECTED
    assert '"price":1.10,' in lines[0]
    assert '"price":12345678901234567890.5,' in lines[2]


@pytest.mark.feature("S2-25")
def test_json_is_one_array_of_the_rows(exporting: Exporting, sessions: Sessions) -> None:
    empty = exporting.body(exporting.export("things", format="json"))
    add(sessions, ROWS)

    body = exporting.body(exporting.export("things", format="json"))

    assert json.loads(empty) == []
    assert json.loads(body) == EXPECTED


def test_an_array_of_many_blocks_has_a_comma_between_all_rows(exporting: Exporting, sessions: Sessions) -> None:
    add(sessions, [{"id": number, "label": "x" * 12} for number in range(40_000)])

    result = exporting.export("things", format="json", vql={"order_by": [{"order_by": "id"}]})

    assert [row["id"] for row in json.loads(exporting.body(result))] == list(range(40_000))


@pytest.mark.feature("S2-25")
def test_a_workbook_holds_texts_as_they_are_and_no_formula(exporting: Exporting, sessions: Sessions) -> None:
    add(sessions, [*ROWS, {"id": 3, "label": "=1+1"}])

    body = exporting.body(exporting.export("things", format="xlsx", vql={"order_by": [{"order_by": "id"}]}))

    found = cells(body)
    assert found[0] == list(THINGS.column_names)
    assert found[1][:6] == ["1", 'a "b", c\\d', None, "1.10", '{"x,y",NULL}', None]
    assert found[2][1:3] == ["two\nlines_x000D_\n", ""]
    assert found[3][1] == "=1+1"
    assert found[4][:4] == [str(ROWS[2]["id"]), "<&>_x005F_x0041__x0002_😀", "a@b", "12345678901234567890.5"]
    assert b"<f>" not in zipfile.ZipFile(io.BytesIO(body)).read("xl/worksheets/sheet1.xml")


# Whatever Postgres can store: anything but U+0000 and halves of surrogate pairs.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@tried(max_examples=8)
@given(st.lists(st.one_of(TEXTS, st.sampled_from(["_x000D_", "\\.", "\r\n", '"', "\ufffe", "\x1f"])), max_size=20))
def test_any_texts_come_back_from_every_format(exporting: Exporting, sessions: Sessions, texts: list[str]) -> None:
    with sessions.begin() as session:
        session.execute(text("TRUNCATE t_default.things"))
    add(sessions, [{"id": number, "label": one} for number, one in enumerate(texts)])
    vql = {"select_columns": ["label"], "order_by": [{"order_by": "id"}]}

    found = {
        name: exporting.body(exporting.export("things", format=name, vql=vql)) for name in ("csv", "ndjson", "xlsx")
    }

    lines = csv.reader(io.StringIO(found["csv"].decode(), newline=""))
    assert [row[0] for row in lines][1:] == texts
    assert [json.loads(line)["label"] for line in found["ndjson"].split(b"\n")[:-1]] == texts
    shown = [str(row[0]) for row in cells(found["xlsx"])[1:]]
    assert [re.sub("_x([0-9A-F]{4})_", lambda code: chr(int(code[1], 16)), one) for one in shown] == texts


def test_a_text_that_no_cell_holds_fails_the_export_and_names_the_column(
    exporting: Exporting, sessions: Sessions
) -> None:
    add(sessions, [{"id": 1, "label": "x", "email": "e" * 32_768}])

    with pytest.raises(JobError, match="'email'") as caught:
        exporting.export("things", format="xlsx")

    assert caught.value.code == "export.cell_too_long"


@pytest.mark.feature("S0-24")
@pytest.mark.parametrize(
    ("compression", "unpack", "suffix"), [("gzip", gzip.decompress, ".gz"), ("zstd", zstd.decompress, ".zst")]
)
def test_a_packed_file_holds_the_same_as_a_plain_one(
    exporting: Exporting, sessions: Sessions, compression: str, unpack: Any, suffix: str
) -> None:
    add(sessions, [{"id": number, "label": "the same"} for number in range(1_000)])
    plain = exporting.body(exporting.export("things"))

    result = exporting.export("things", compression=compression)

    packed = exporting.body(result)
    assert unpack(packed) == plain
    assert len(packed) < len(plain)
    assert result.data["s3_key"].endswith(f".csv{suffix}")


@pytest.mark.feature("S2-26", "S4-110")
def test_key_and_metadata_are_added_when_asked_for(exporting: Exporting, sessions: Sessions) -> None:
    add(sessions, ROWS[:1])
    vql = {"select_columns": ["label"]}

    bare = exporting.export("things", vql=vql)
    full = exporting.export("things", vql=vql, include_uuid=True, include_metadata=True)

    assert bare.data["columns"] == ["label"]
    assert full.data["columns"] == ["id", "label", "haulier_created_at", "haulier_updated_at", "haulier_job_id"]
    (row,) = csv.DictReader(io.StringIO(exporting.body(full).decode()))
    assert (row["id"], row["haulier_created_at"]) == ("1", "2026-01-01 00:00:00+00")


@pytest.mark.feature("S2-27")
def test_rows_that_break_the_declaration_are_left_out_and_counted(exporting: Exporting, sessions: Sessions) -> None:
    bad = [{"id": 11}, {"id": 12, "label": "longer than twelve"}, {"id": 13, "label": "x", "email": "none"}]
    add(sessions, [{"id": 10, "label": "good", "email": "a@b"}, *bad])

    result = exporting.export("things", filter_invalid=True, vql={"select_columns": ["id"]})

    assert exporting.body(result) == b"id\n10\n"
    assert exporting.manifest(result)["invalid_rows_left_out"] == 3


def test_a_spreadsheet_takes_no_text_for_a_formula_when_asked(exporting: Exporting, sessions: Sessions) -> None:
    texts = ["=1+1", "+1", "-2.5", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1", "a=b", ""]
    add(sessions, [{"id": number, "label": one} for number, one in enumerate(texts)])
    vql = {"select_columns": ["label"], "order_by": [{"order_by": "id"}]}

    body = exporting.body(exporting.export("things", vql=vql, spreadsheet_safe=True)).decode()

    shown = [row["label"] for row in csv.DictReader(io.StringIO(body, newline=""))]
    dangerous = {"=1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1"}
    assert shown == [f"'{one}" if one in dangerous else one for one in texts]


@pytest.mark.feature("S4-109")
def test_the_key_is_a_template_and_a_name_that_is_taken_is_refused_or_numbered(exporting: Exporting) -> None:
    template = "reports/{table}-{type}-{date}"
    first = exporting.export("things", key=template)

    with pytest.raises(JobError) as caught:
        exporting.export("things", key=template)
    second = exporting.export("things", key=template, if_exists="number")

    date = exporting.created_at.date()
    assert first.data["s3_key"] == f"reports/things-export-{date}.csv"
    assert second.data["s3_key"] == f"reports/things-export-{date}-2.csv"
    assert caught.value.code == "export.key_taken"


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"format": "xml"}, "/config/format"),
        ({"key": "x-{user}"}, "/config/key"),
        ({"format": "xlsx", "compression": "gzip"}, "/config"),
        ({"parallel": 2}, "/config"),
        ({"vql": {"limit": 3}, "max_rows_per_part": 2}, "/config/vql/limit"),
        ({"destination": {"folder": "../up"}}, "/config/destination/folder"),
    ],
)
def test_a_config_that_no_run_could_use_is_refused_with_its_place(
    exporting: Exporting, sessions: Sessions, config: Mapping[str, Any], pointer: str
) -> None:
    types = registry()
    tables = Tables(sessions)
    submission = TenantSubmission("default", settings=exporting.settings, sessions=sessions, tables=tables)
    request = SubmitJob("default", "export", {"table": "things", **config}, "test")

    with pytest.raises(InvalidRequestError) as caught:
        Checks(types, lambda _: submission).checked(request)

    assert caught.value.problems[0].pointer == pointer


def download(exporting: Exporting, result: Result, folder: Path) -> Path:
    """The files and the manifest as a client has them."""
    manifest = exporting.manifest(result)
    for part in manifest["parts"]:
        (folder / part["key"].rsplit("/", 1)[-1]).write_bytes(exporting.read(part["key"]))
    (folder / "manifest.json").write_bytes(exporting.read(result.data["manifest_key"]))
    return folder


def verify(*arguments: str, secret: str = SECRET) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["verify", *arguments], env={"HAULIER_SECRET_KEY": secret})
    return done.exit_code, done.output


def test_a_download_is_verified_without_a_server(exporting: Exporting, sessions: Sessions, tmp_path: Path) -> None:
    add(sessions, ROWS)
    folder = download(exporting, exporting.export("things", compression="zstd"), tmp_path)

    exit_code, said = verify(str(folder), "--require-signature")

    assert exit_code == 0
    assert "signature valid" in said
    assert "3 rows in 1 files: ok" in said


def test_a_changed_file_a_changed_manifest_and_a_missing_file_are_found(
    exporting: Exporting, sessions: Sessions, tmp_path: Path
) -> None:
    add(sessions, ROWS)
    folder = download(exporting, exporting.export("things"), tmp_path)
    (file,) = folder.glob("*.csv")
    body, manifest = file.read_bytes(), (folder / "manifest.json").read_text()

    file.write_bytes(body.replace(b"a@b", b"a@c"))
    changed = verify(str(folder))
    file.unlink()
    missing = verify(str(folder))
    file.write_bytes(body)
    (folder / "manifest.json").write_text(manifest.replace('"things"', '"theirs"'))
    forged = verify(str(folder))

    assert (changed[0], "SHA-256" in changed[1]) == (1, True)
    assert (missing[0], "is missing" in missing[1]) == (1, True)
    assert (forged[0], "WRONG" in forged[1]) == (1, True)


def test_without_the_secret_the_signature_is_not_checked_and_that_is_said(exporting: Exporting, tmp_path: Path) -> None:
    folder = download(exporting, exporting.export("things"), tmp_path)

    plain = verify(str(folder), secret="another")
    strict = verify(str(folder), "--require-signature", secret="another")

    assert (plain[0], "not checked" in plain[1]) == (0, True)
    assert strict[0] == 1


def test_what_is_no_manifest_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"rows": 1}')

    nothing = verify(str(tmp_path))
    other = verify(str(tmp_path / "other.json"))

    assert nothing[0] == 5
    assert (other[0], "no manifest" in other[1]) == (2, True)


@pytest.mark.feature("S2-69")
def test_artifacts_are_the_file_and_its_manifest(exporting: Exporting, sessions: Sessions) -> None:
    add(sessions, ROWS)
    result = exporting.export("things", format="xlsx")

    with sessions.begin() as session:
        file, manifest = artifacts.of_job(session, "default", exporting.jobs[-1].id)

    body = exporting.body(result)
    assert (file.size_bytes, file.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert file.content_type.endswith("spreadsheetml.sheet")
    assert manifest.ref.key == result.data["manifest_key"]


@pytest.mark.feature("S1-08")
def test_a_folder_of_the_installation_takes_the_files(exporting: Exporting, sessions: Sessions, tmp_path: Path) -> None:
    add(sessions, ROWS)

    result = exporting.export("things", key="out/{table}", destination={"folder": "daily"})

    written = tmp_path / "default" / "daily" / "out"
    assert sorted(file.name for file in written.iterdir()) == ["things.csv", "things.csv.manifest.json"]
    assert result.data["s3_bucket"] is None
    assert verify(str(written))[0] == 0


def test_a_folder_that_leads_elsewhere_is_not_followed(exporting: Exporting, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "daily").symlink_to(elsewhere)

    with pytest.raises(JobError) as caught:
        exporting.export("things", destination={"folder": "daily"})

    assert caught.value.code == "folder.refused"
    assert list(elsewhere.iterdir()) == []
