"""``validate_only``: what an import would do, as a job and as ``haulier validate``, and that nothing is left of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.domain.errors import InvalidRequestError
from app.domain.jobs import Outcome
from app.domain.ports import ObjectStore
from app.domain.texts import check_json
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import THINGS
from tests.integration.test_import_shaping import checked, things

BODY = "id,name,amount,when\n" + "".join(f"{n},n{n},{'x' if n % 4 == 3 else n},2024-05-31\n" for n in range(40))
CONFIG: dict[str, Any] = {
    "mapping": {"when": "at"},
    "rules": [{"rule": "enum", "column": "name", "values": [f"n{n}" for n in range(38)]}],
}
DECLARED = {
    "columns": [
        {"name": column.name, "type": column.type.value, "required": column.required} for column in THINGS.columns
    ],
    "key": ["id"],
}


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    importing = ImportingAny(settings, sessions, objects)
    Tables(sessions).declare("default", THINGS)
    return importing


def validated(imports: ImportingAny, body: str | bytes, **config: Any) -> dict[str, Any]:
    return imports.load(body, validate_only=True, **config).data


@pytest.mark.feature("S2-15")
def test_a_dry_run_tells_what_would_become_of_the_file_and_writes_nothing(imports: ImportingAny) -> None:
    result = imports.load(BODY, validate_only=True, **CONFIG)

    report = result.data
    assert (report["passed"], result.outcome) == (False, Outcome.PARTIAL)
    assert report["records"] == {"read": 40, "blank": 0, "rejected": 11, "complete": True}
    groups = [(one["stage"], one["code"], one["field"], one["count"], len(one["samples"])) for one in report["rejects"]]
    assert groups == [("validate", "value.numeric", "amount", 9, 3), ("validate", "rule.enum", "name", 2, 2)]
    assert report["rejects"][0]["samples"][0] == {
        "line": 5,
        "message": "amount: expected a number such as 12.5 or 1e6, got 'x'",
        "raw": "3,n3,x,2024-05-31",
    }
    assert {one["name"]: one["type"] for one in report["schema"]} == {
        "id": "integer",
        "name": "text",
        "amount": "text",
        "when": "date",
    }
    assert report["estimate"]["rows"] == 40
    assert (things(imports), imports.ledger()) == ([], [])
    assert imports.rows("SELECT count(*) FROM import_batches") == [(0,)]


def test_a_required_column_that_a_service_fills_is_not_told_to_be_missing(imports: ImportingAny) -> None:
    spec = {"provider": "http", "key": ["note"], "fields": ["name"], "config": {"url": "http://x.example/"}}

    report = validated(imports, "id,note\n1,ada\n", enrich=[spec])

    assert (report["passed"], report["rejects"]) == (True, [])
    assert report["not_checked"][:2] == [
        "enrich by http: no service is asked",
        "name is required: a service fills it",
    ]


@pytest.mark.feature("S2-15", "S2-19")
def test_a_header_that_does_not_fit_is_told_with_what_it_may_have_meant(imports: ImportingAny) -> None:
    report = validated(imports, "id,naem\n1,one\n")

    assert [problem["code"] for problem in report["problems"]] == ["csv.header_unknown"]
    assert (report["passed"], report["auto_map"]) == (False, False)
    assert [(one["header"], one["nearest"], one["confidence"]) for one in report["mapping"]][1] == (
        "naem",
        "name",
        0.75,
    )
    assert [one["type"] for one in report["schema"]] == ["integer", "text"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"id,name\n1,\0\n2,\xff\n", {"csv.nul", "csv.encoding"}),
        (b'[{"id":1,"name":"\\u0000"},{"id":2,"name":"\\ud800"}]', {"json.nul", "json.encoding"}),
        (b"id,na\0me\n1,a\n", {"csv.header_invalid"}),
        (b'[{"id":1,"n\\u0000":2},{"id":2,"n\\ud800":3}]', {"csv.header_invalid"}),
    ],
    ids=["csv", "json", "header", "keys"],
)
def test_text_that_postgres_cannot_hold_is_told_of_like_any_other(
    imports: ImportingAny, body: bytes, told: set[str]
) -> None:
    report = validated(imports, body)

    check_json(report, "report", code="job.result_invalid")
    assert {one["code"] for one in [*report["rejects"], *report["problems"]]} == told
    assert not report["passed"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_part_of_the_file_tells_of_the_whole(imports: ImportingAny, packed: bool) -> None:
    body = ("id,name\n" + "".join(f"{n:06},{n * 7919 % 100_003:08}\n" for n in range(30_000))).encode()

    report = validated(imports, gzip.compress(body) if packed else body, validate_rows=1_000)

    assert not report["records"]["complete"]
    assert 1_000 <= report["records"]["read"] < 30_000
    assert report["passed"]
    assert packed or report["estimate"]["rows"] == pytest.approx(30_000, rel=0.05)


@pytest.mark.parametrize(
    ("body", "config", "code"),
    [
        ("", {}, "csv.empty"),
        ("id,name\n", {"max_file_size": 2}, "source.too_large"),
        ("id,name\n", {"allowed_formats": ["json"]}, "source.format_forbidden"),
        ('[{"id":1,"name":"a"}, nothing]', {}, "json.invalid"),
        ("id,name\n1,a\n", {"rules": [{"rule": "required", "column": "note"}]}, "import.field_unknown"),
    ],
)
def test_what_would_end_the_job_is_a_problem_of_the_report(
    imports: ImportingAny, body: str, config: dict[str, Any], code: str
) -> None:
    report = validated(imports, body, **config)

    assert ([problem["code"] for problem in report["problems"]], report["passed"]) == ([code], False)


@pytest.mark.feature("S4-107")
@pytest.mark.parametrize(("source", "pointer"), [({"s3": {"key": "uploads/none.csv"}}, "/config/source")])
def test_a_file_that_is_not_there_is_refused_before_there_is_a_job(
    imports: ImportingAny, source: dict[str, Any], pointer: str
) -> None:
    checked(imports, source={"s3": {"key": imports.put("id,name\n")}}, validate_only=True)

    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, source=source, validate_only=True)

    assert (raised.value.code, raised.value.problems[0].pointer) == ("s3.not_found", pointer)


def offline(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(
        main, ["validate", str(tmp_path / "in.csv"), "--json", *arguments], env={"HAULIER_URL": ""}
    )
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.feature("S4-117")
def test_a_file_is_validated_offline_with_the_report_of_the_server(imports: ImportingAny, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(BODY)
    (tmp_path / "table.json").write_text(json.dumps({"name": "things", **DECLARED}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    code, report = offline(
        tmp_path, "--schema", str(tmp_path / "table.json"), "--config", str(tmp_path / "config.json")
    )

    of_the_server = validated(imports, BODY, **CONFIG)
    assert code == 1
    assert {**report, "estimate": None} == {**of_the_server, "estimate": None}


@pytest.mark.feature("S4-117")
def test_offline_a_built_in_table_is_known_and_people_read_the_report(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("First Name,email_address\nAda,ada@example.org\n")

    code, report = offline(tmp_path, "--table", "contacts", "--auto-map")
    said = CliRunner().invoke(main, ["validate", str(tmp_path / "in.csv"), "--table", "contacts"])

    assert (code, report["passed"]) == (0, True)
    assert [one["column"] for one in report["mapping"]] == ["first_name", "email"]
    assert said.exit_code == 1
    assert "csv.header_unknown" in said.stdout
    assert "NOT PASSED" in said.stdout


@pytest.mark.parametrize(
    ("schema", "code"),
    [("{", "usage.not_json"), ("[]", "usage.not_json"), ('{"columns": []}', "table.invalid")],
)
def test_a_schema_that_is_none_is_refused(tmp_path: Path, schema: str, code: str) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    (tmp_path / "table.json").write_text(schema)

    exit_code, answer = offline(tmp_path, "--schema", str(tmp_path / "table.json"))

    assert (exit_code, answer["error"]["code"]) == (2, code)
