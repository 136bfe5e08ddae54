"""What an import can do, together: shaped rows under a changed config, in a replay, with NULL apart, dry and undone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.dataplane import postgres_errors
from app.dataplane import replay as dataplane
from app.domain.errors import JobError
from app.domain.jobs import Outcome
from app.domain.ports import ObjectStore
from app.domain.row_plugins import Validator
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny
from tests.integration.test_import_amended import paused
from tests.integration.test_import_csv import Killed, books, stop_after
from tests.integration.test_import_xlsx import EICAR, clamd
from tests.integration.test_ledger import imported, replayed, sent_back
from tests.integration.test_revert import reverted
from tests.workbooks import number, row, text, workbook

THINGS = Table(
    "things",
    (
        Column("id", ColumnType.BIGINT),
        Column("name", ColumnType.TEXT),
        Column("amount", ColumnType.NUMERIC),
        Column("note", ColumnType.TEXT),
    ),
    ("id",),
    indexes=(Index(("name",)),),
)
UPPER = {"field": "name", "operation": "uppercase"}
BODY = "id,name\n" + "".join(f"{n},n{n % 24}\n" for n in range(30))
BOOK = workbook(
    row(1, [text("id"), text("Naem"), text("amount")])
    + "".join(row(n, [number(str(n)), text(f"n{n}"), text("x" if n % 3 == 0 else str(n))]) for n in range(2, 12))
)


class Deadlocked(psycopg2.Error):
    """What Postgres says to the one of two that it chose."""

    pgcode = "40P01"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    Tables(sessions).declare("default", THINGS)
    return ImportingAny(settings, sessions, objects)


def things(imports: ImportingAny, columns: str = "id, name") -> list[tuple[Any, ...]]:
    return imports.rows(f"SELECT {columns} FROM t_default.things ORDER BY id")


def amend(imports: ImportingAny, job_id: UUID, **changes: Any) -> None:
    patch = json.dumps(changes)
    imports.rows(
        "UPDATE jobs SET config = config || CAST(:patch AS jsonb) WHERE id = :id RETURNING 1", patch=patch, id=job_id
    )


def killed(imports: ImportingAny, job_id: UUID, *, commits: int, **settings: Any) -> None:
    """Run a job that is killed behind some commits."""
    context = imports.context(job_id, **settings)
    stop_after(context, commits=commits)
    with pytest.raises(Killed):
        imports.run(context)


# Another config on the way


def test_a_paused_import_goes_on_with_headers_by_likeness_transforms_and_rules(
    imports: ImportingAny, member: Client
) -> None:
    body = "id,Naem,Amuont\n" + "".join(f"{n},n{n % 8},{'x' if n < 3 else n}\n" for n in range(12))
    job_id = imports.submit(body, mapping={"Naem": "name", "Amuont": "amount"}, batch_rows=3, lanes=1, max_errors=2)
    paused(imports, imports.context(job_id))
    patch = {
        "mapping": None,
        "auto_map": {"threshold": 0.6},
        "transforms": [UPPER, {"field": "note", "operation": "default", "value": "new"}],
        "rules": [{"rule": "unique", "columns": ["name"]}],
        "max_errors": None,
        "max_error_rate": 1.0,
    }
    wrong = member.post(f"/v1/jobs/{job_id}:resume", {"config": {"rules": [{"rule": "required", "column": "nmae"}]}})

    right = member.post(f"/v1/jobs/{job_id}:resume", {"config": patch})
    result = imports.run(imports.context(job_id))

    assert (wrong.status_code, wrong.get_json()["errors"][0]["pointer"]) == (422, "/config/rules/0")
    assert right.status_code == 200
    assert [(one["column"], one["by"]) for one in result.data["mapping"]] == [
        ("id", "name"),
        ("name", "fuzzy"),
        ("amount", "fuzzy"),
    ]
    first = min(number for number, _ in things(imports))
    assert things(imports, "id, name, note") == [(n, f"N{n}", "new") for n in range(first, 8)]
    assert [line for line, code, *_ in imports.ledger() if code == "rule.unique"] == [10, 11, 12, 13]


@pytest.mark.parametrize("commits", [2, 3, 5, 6, 9])
def test_every_batch_is_shaped_by_one_config_in_all_lanes(imports: ImportingAny, commits: int) -> None:
    rules = [{"rule": "unique", "columns": ["name"]}]
    job_id = imports.submit(BODY, batch_rows=3, lanes=3, rules=rules, max_error_rate=1.0)
    killed(imports, job_id, commits=commits)
    amend(imports, job_id, transforms=[UPPER], rules=[{"rule": "length", "column": "name", "max": 2}])
    killed(imports, job_id, commits=1)

    result = imports.run(imports.context(job_id))

    cases: dict[int, set[bool]] = {}
    for at, name in things(imports):
        cases.setdefault(at // 3, set()).add(name.isupper())
    assert {len(seen) for seen in cases.values()} == {1}
    done = result.data["books"]
    assert done["read"] == 30 == done["loaded"] + done["failed"]
    assert len(things(imports)) == done["loaded"]
    assert len(imports.ledger(job_id)) == done["failed"]


def test_what_is_unique_from_the_change_on_was_there_before_it(imports: ImportingAny) -> None:
    job_id = imports.submit(BODY, batch_rows=6, lanes=1, transforms=[UPPER])
    killed(imports, job_id, commits=3)
    amend(imports, job_id, rules=[{"rule": "unique", "columns": ["name"]}], max_error_rate=1.0)

    imports.run(imports.context(job_id))

    assert [line for line, *_ in imports.ledger(job_id)] == [26, 27, 28, 29, 30, 31]


def test_an_import_that_comes_to_ask_others_has_one_lane_from_then_on(
    imports: ImportingAny, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = imports.submit(BODY, batch_rows=3, lanes=3)
    killed(imports, job_id, commits=5)
    monkeypatch.setattr("app.dataplane.rules.find", lambda *_: Validator(lambda *_: {}, "Lets all pass"))
    amend(imports, job_id, rules=[{"rule": "custom", "name": "any", "columns": ["name"]}])

    result = imports.run(imports.context(job_id))

    assert result.data["lanes"] == 1
    assert books(result) == {"read": 30, "loaded": 30}


@pytest.mark.parametrize("patch", [{"revertible": True}, {"validate_only": True}])
def test_what_a_job_is_all_through_cannot_be_changed_on_the_way(imports: ImportingAny, patch: dict[str, Any]) -> None:
    job_id = imports.submit(BODY, batch_rows=3)
    killed(imports, job_id, commits=3)
    amend(imports, job_id, **patch)

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "import.config_changed"


def test_a_changed_import_on_the_bulk_path_builds_its_indexes_and_is_taken_back_whole(imports: ImportingAny) -> None:
    job_id = imports.submit(BODY, batch_rows=3, lanes=2, revertible=True)
    killed(imports, job_id, commits=6, bulk_path_bytes=1)
    between = sorted(Tables(imports.sessions).describe("default", "things").existing.indexes)
    amend(imports, job_id, transforms=[UPPER], mode="insert")

    context = imports.context(job_id, bulk_path_bytes=1)
    result = imports.run(context)
    Runs(imports.sessions).complete(context.job, result)

    assert (between, result.data["indexes"]) == ([], "built")
    assert sorted(Tables(imports.sessions).describe("default", "things").existing.indexes) == ["things_name_idx"]
    assert {name.isupper() for _, name in things(imports)} == {True, False}
    assert reverted(imports, job_id) == {"read": 30, "deleted": 30}
    assert things(imports) == []


# Replay


SHAPED = {
    "transforms": [UPPER, {"field": "note", "operation": "split", "into": ["note", "amount"], "separator": "/"}],
    "rules": [{"rule": "enum", "column": "name", "values": ["ADA", "EVE"]}, {"rule": "unique", "columns": ["name"]}],
}


@pytest.mark.parametrize("raw_rows", [0, 100])
@pytest.mark.parametrize(
    "body",
    [
        "id,name,note\n1,ada,a/1\n2,adda,b/2\n3,eve,c/x\n",
        '{"id":1,"name":"ada","note":"a/1"}\n{"id":2,"name":"adda","note":"b/2"}\n{"id":3,"name":"eve","note":"c/x"}\n',
        workbook(
            row(1, [text("id"), text("name"), text("note")])
            + row(2, [number("1"), text("ada"), text("a/1")])
            + row(3, [number("2"), text("adda"), text("b/2")])
            + row(4, [number("3"), text("eve"), text("c/x")])
        ),
    ],
    ids=["csv", "ndjson", "xlsx"],
)
def test_a_replay_shapes_rows_as_their_import_did(
    imports: ImportingAny, member: Client, body: bytes | str, raw_rows: int
) -> None:
    source = imported(imports, body, raw_rows=raw_rows, **SHAPED)
    refused = [(line, code) for line, code, *_ in imports.ledger(source)]
    once, again = replayed(imports, source)
    told = member.get(f"/v1/jobs/{source}/failed-records?format=csv").get_data(as_text=True)
    rows = list(csv.DictReader(io.StringIO(told)))
    fields = {"row.id": "3", "name": "eve", "note": "z/3"}
    corrected = [{"line": row["line"], **fields} for row in rows if row["code"] == "value.numeric"]
    sent = sent_back(member, source, corrected)
    _, last = replayed(imports, source)

    assert [code for _, code in refused] == ["rule.enum", "value.numeric"]
    assert [(line, code) for line, code, *_ in imports.ledger(once)] == refused
    assert again.data["resolved"] == 0
    assert [one["stage"] for one in rows] == ["validate", "validate"]
    assert sent.get_json() == {"corrected": 1, "unchanged": 0}
    assert last.data["resolved"] == 1
    assert things(imports, "id, name, note, amount::int") == [(1, "ADA", "a", 1), (3, "EVE", "z", 3)]


def test_a_replay_that_met_other_writers_does_not_take_its_rows_for_those_before_them(
    imports: ImportingAny, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "id,name,amount\n1,a,x\n2,b,x\n3,b,x\n"
    source = imported(imports, body, rules=[{"rule": "unique", "columns": ["name"]}])
    imports.rows("UPDATE failed_records SET corrected = replace(raw, 'x', '1') RETURNING 1")
    errors, resolve = [Deadlocked("another was first")], dataplane.failed_records.resolve

    def deadlocked_once(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return resolve(*args, **kwargs)

    monkeypatch.setattr(dataplane.failed_records, "resolve", deadlocked_once)
    monkeypatch.setattr(postgres_errors, "_FIRST_WAIT_S", 0.001)

    _, result = replayed(imports, source)

    assert (errors, result.data["resolved"], result.data["unresolved"]) == ([], 2, 1)
    assert things(imports) == [(1, "a"), (2, "b")]


def test_a_replay_of_an_amended_import_takes_the_config_it_went_on_with(imports: ImportingAny) -> None:
    body = "id,name,note\n" + "".join(f"{n},n{n},{'-' if n % 2 else n}\n" for n in range(8))
    rules = [{"rule": "pattern", "column": "note", "pattern": "[0-9]*"}]
    job_id = imports.submit(body, batch_rows=2, lanes=1, rules=rules, max_error_rate=1.0)
    killed(imports, job_id, commits=3)
    amend(imports, job_id, null_tokens=["-"], transforms=[UPPER])
    context = imports.context(job_id)
    Runs(imports.sessions).complete(context.job, imports.run(context))

    _, replay = replayed(imports, job_id)

    assert (replay.data["resolved"], replay.data["unresolved"]) == (2, 0)
    assert things(imports, "id, name, note")[1:4] == [(1, "N1", None), (2, "n2", "2"), (3, "N3", None)]


# NULL apart from empty text


@pytest.mark.parametrize(
    "body",
    [
        'id,name,note,amount\n1,NULL,NULL,NULL\n2,,,\n3,"  ",NULL,\n4,a b,x,\n',
        '[{"id":1,"name":null},{"id":2,"name":"","note":""},{"id":3,"name":"  "},{"id":4,"name":"a b","note":"x"}]',
    ],
)
def test_null_stays_apart_where_values_are_emptied_or_filled(imports: ImportingAny, body: str) -> None:
    transforms = [
        {"field": "name", "operation": "trim"},
        {"field": "amount", "operation": "default", "value": "7"},
    ]
    rules = [
        {"rule": "length", "column": "name", "min": 2},
        {"rule": "unique", "columns": ["note"]},
        {"rule": "pattern", "column": "note", "pattern": "[a-z]+"},
    ]

    imports.load(body, empty_as="text", null_tokens=["NULL"], transforms=transforms, rules=rules)

    assert imports.ledger() == []
    assert things(imports, "id, name, note, amount::int") == [
        (1, None, None, 7),
        (2, "", "", 7),
        (3, "", None, 7),
        (4, "a b", "x", 7),
    ]


def test_a_default_fills_what_is_null_and_parts_that_are_missing_are_null(imports: ImportingAny) -> None:
    imports.load(
        '{"id":1,"full":"ada x","name":null}\n{"id":2,"full":"eve","name":"n"}\n{"id":3,"full":null}\n',
        empty_as="text",
        transforms=[
            {"field": "name", "operation": "default", "value": "nobody"},
            {"field": "full", "operation": "split", "into": ["note", "amount"], "separator": " x"},
        ],
        rules=[{"rule": "required", "column": "id"}],
        header=["id", "full", "name"],
    )

    assert things(imports, "id, name, note, amount") == [
        (1, "nobody", "ada", None),
        (2, "n", "eve", None),
        (3, "nobody", None, None),
    ]


def test_null_stays_apart_in_records_that_are_looked_through_once_more(imports: ImportingAny) -> None:
    body = "".join(json.dumps({"id": n, "name": None if n % 2 else "", "note": f"{n % 9}"}) + "\n" for n in range(12))
    rules = [{"rule": "unique", "columns": ["note"]}]
    job_id = imports.submit(body, batch_rows=3, lanes=1, empty_as="text", rules=rules, transforms=[UPPER])
    killed(imports, job_id, commits=3)

    imports.run(imports.context(job_id))

    assert [line for line, *_ in imports.ledger(job_id)] == [10, 11, 12]
    assert things(imports) == [(n, None if n % 2 else "") for n in range(9)]


# Dry runs


CONFIG = {"auto_map": {"threshold": 0.7}, "transforms": [UPPER], "rules": [{"rule": "unique", "columns": ["name"]}]}


def offline(tmp_path: Path, body: bytes, config: dict[str, Any]) -> Any:
    columns = [{"name": column.name, "type": column.type.value} for column in THINGS.columns]
    (tmp_path / "table.json").write_text(json.dumps({"name": "things", "columns": columns, "key": ["id"]}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "in").write_bytes(body)
    done = CliRunner().invoke(
        main,
        [
            "validate",
            f"{tmp_path}/in",
            "--schema",
            f"{tmp_path}/table.json",
            "--config",
            f"{tmp_path}/config.json",
            "--json",
        ],
        env={"HAULIER_URL": ""},
    )
    return json.loads(done.stdout)


@pytest.mark.feature("S2-15", "S2-17", "S4-117")
@pytest.mark.parametrize(
    ("body", "config"),
    [
        (BOOK, CONFIG),
        (b'{"id":1,"Naem":null,"amount":""}\n{"id":2,"Naem":"","amount":"x"}\n', {**CONFIG, "empty_as": "text"}),
        (b"id,name\n1,-\n", {"empty_as": "text", "null_tokens": ["-"]}),
    ],
    ids=["xlsx", "ndjson", "csv"],
)
def test_a_dry_run_tells_what_the_import_then_does_and_offline_the_same(
    imports: ImportingAny, tmp_path: Path, body: bytes, config: dict[str, Any]
) -> None:
    report = imports.load(body, validate_only=True, **config).data
    written = things(imports), imports.ledger(), imports.rows("SELECT count(*) FROM artifacts")
    without_a_server = offline(tmp_path, body, config)

    result = imports.load(body, max_error_rate=1.0, **config)

    assert written == ([], [], [(0,)])
    assert {**without_a_server, "estimate": None} == {**report, "estimate": None}
    assert report["problems"] == []
    assert report["format"] == result.data["format"]
    assert (report["records"]["read"], report["records"]["rejected"]) == (
        result.data["books"]["read"],
        result.data["books"]["failed"],
    )
    told = [sample["line"] for group in report["rejects"] for sample in group["samples"]]
    assert told == [line for line, *_ in imports.ledger()][:3]
    assert report["estimate"]["stored_bytes"] == len(body)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"sheet": "nothing"}, "xlsx.no_sheet"),
        ({"format": "csv"}, "source.format_mismatch"),
        ({}, "csv.header_unknown"),
    ],
)
def test_what_a_workbook_would_end_the_job_by_is_a_problem_of_the_report(
    imports: ImportingAny, config: dict[str, Any], code: str
) -> None:
    report = imports.load(BOOK, validate_only=True, **config).data

    assert [problem["code"] for problem in report["problems"]] == [code]


@pytest.mark.feature("S2-18")
def test_a_dry_run_has_the_file_scanned_and_offline_says_that_it_was_not(imports: ImportingAny, tmp_path: Path) -> None:
    body = b"id,name\n1,EICAR-STANDARD-ANTIVIRUS-TEST-FILE\n"
    with clamd(imports):
        infected = imports.load(body, validate_only=True, scan_for_viruses=True)
        clean = imports.load(BOOK, validate_only=True, scan_for_viruses=True, **CONFIG).data

    without_a_server = offline(tmp_path, body, {"scan_for_viruses": True})

    assert [problem["code"] for problem in infected.data["problems"]] == ["source.infected"]
    assert EICAR in infected.data["problems"][0]["message"]
    assert (infected.outcome, infected.data["schema"]) == (Outcome.PARTIAL, [])
    assert clean["records"]["read"] == 10
    assert without_a_server["not_checked"][0] == "viruses: no scanner is asked"


def test_rows_that_are_left_out_are_shaped_before(imports: ImportingAny) -> None:
    rules = [{"rule": "enum", "column": "name", "values": ["N1", "N2"]}]

    result = imports.load(BODY, transforms=[UPPER], rules=rules, on_invalid="skip", max_error_rate=1.0)

    assert books(result) == {"read": 30, "loaded": 4, "skipped": 26}
    assert imports.ledger() == []
