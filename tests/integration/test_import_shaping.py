"""Mapping by likeness, transforms and rules of ``import``, from the config to the table and the ledger."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.error_codes import REMEDIES
from app.domain.errors import HaulierError, InvalidRequestError, JobError
from app.domain.failed_records import stage_of
from app.domain.jobs import Outcome
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from config.settings import Settings
from tasks.types.import_rows import JOB_TYPE
from tests.factories import registry
from tests.integration.imports import ImportingAny
from tests.integration.packages import install
from tests.integration.test_import_csv import THINGS, Killed, books, state, stop_after

VALIDATORS = """
from haulier import Validator

def check(rows, params):
    return {place: f"{row['name']} is on the list" for place, row in enumerate(rows) if row["name"] in params["names"]}

NOT_LISTED = Validator(check, "Names that are on no list")
"""


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    importing = ImportingAny(settings, sessions, objects)
    Tables(sessions).declare("default", THINGS)
    return importing


@pytest.fixture
def validators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_validators.py").write_text(VALIDATORS)
    install(
        tmp_path,
        "my-validators",
        {"haulier.validators": {"not_listed": "my_validators:NOT_LISTED", "broken": "my_validators:MISSING"}},
    )
    yield
    sys.modules.pop("my_validators", None)


def checked(imports: ImportingAny, **config: Any) -> None:
    submission = TenantSubmission(
        "default",
        settings=imports.settings,
        sessions=imports.sessions,
        tables=Tables(imports.sessions),
        objects=imports.objects,
    )
    assert JOB_TYPE.check is not None
    parsed = registry().parse(JOB_TYPE, {"source": {"text": "id,name\n"}, "table": "things", **config})
    JOB_TYPE.check(submission, parsed)


def things(imports: ImportingAny, columns: str = "id, name") -> list[tuple[Any, ...]]:
    return imports.rows(f"SELECT {columns} FROM t_default.things ORDER BY id")


@pytest.mark.feature("S2-19", "S2-20")
@pytest.mark.parametrize(
    "body", ["ID,Naem,amount (value),colour\n1,one,2.5,red\n", '{"ID":1,"Naem":"one","colour":"red"}\n']
)
def test_headers_find_their_columns_and_the_result_tells_which(imports: ImportingAny, body: str) -> None:
    result = imports.load(body, auto_map={"threshold": 0.7})

    told = {one["header"]: (one["column"], one["by"], one["confidence"]) for one in result.data["mapping"]}
    assert things(imports) == [(1, "one")]
    assert told["ID"] == ("id", "name", 1.0)
    assert told["Naem"] == ("name", "fuzzy", 0.75)
    assert told["colour"][:2] == (None, None)


@pytest.mark.feature("S2-21")
def test_without_a_map_or_by_exact_names_alone_the_same_file_is_refused(imports: ImportingAny) -> None:
    codes = []
    for config in ({}, {"auto_map": {"strategy": "exact"}}, {"auto_map": {"threshold": 0.9}}):
        with pytest.raises(JobError) as raised:
            imports.load("id,naem\n1,one\n", **config)
        codes.append(raised.value.code)

    assert codes == ["csv.header_unknown", "csv.header_missing", "csv.header_missing"]


@pytest.mark.feature("S2-29")
def test_values_are_transformed_before_their_types_are_checked(imports: ImportingAny) -> None:
    result = imports.load(
        "id,Full Name,phone,when\n1, ada LOVELACE ,030 901820,31.05.2024\n2,grace hopper,nobody,01.06.2024\n"
        "3,x y,,tomorrow\n",
        mapping={"phone": "note", "when": "at"},
        transforms=[
            {"field": "Full Name", "operation": "title_case"},
            {"field": "full name", "operation": "split", "into": ["name", "tags"]},
            {"field": "note", "operation": "format_phone", "region": "DE"},
            {"field": "when", "operation": "parse_date", "formats": ["%d.%m.%Y"]},
            {"field": "amount", "operation": "default", "value": "1.5"},
        ],
    )

    assert things(imports, "id, name, tags, note, amount::text, at::date::text") == [
        (1, "Ada", ["Lovelace"], "+4930901820", "1.5", "2024-05-31")
    ]
    assert [entry[:3] for entry in imports.ledger()] == [(3, "transform.phone", "note"), (4, "transform.date", "when")]
    assert books(result) == {"read": 3, "loaded": 1, "failed": 2}


def test_a_default_with_what_copy_escapes_is_kept_as_it_is(imports: ImportingAny) -> None:
    imports.load("id,name\n1,one\n", transforms=[{"field": "note", "operation": "default", "value": "a\tb\\c\n"}])

    assert things(imports, "note") == [("a\tb\\c\n",)]


RULES: list[dict[str, Any]] = [
    {"rule": "required", "column": "note"},
    {"rule": "length", "column": "name", "min": 2},
    {"rule": "pattern", "column": "note", "pattern": "[a-z]+"},
    {"rule": "enum", "column": "name", "values": ["one", "two", "x"]},
    {"rule": "range", "column": "amount", "min": 0, "max": 100, "message": "an amount is a percentage"},
    {"rule": "unique", "columns": ["note"]},
    {"rule": "cross_field", "column": "amount", "operator": ">=", "other": "id"},
]


@pytest.mark.feature("S2-22", "S2-24")
def test_a_row_that_breaks_a_rule_goes_to_the_ledger_with_its_code_and_message(imports: ImportingAny) -> None:
    rows = ["1,one,5,a", "2,one,5,", "3,x,5,b", "4,two,5,B", "5,three,5,c", "6,two,101,d", "7,two,50,a", "8,two,7,e"]
    body = "\n".join(["id,name,amount,note", *rows])

    result = imports.load(body, rules=RULES)

    ledger = imports.rows("SELECT line, code, field, message FROM failed_records ORDER BY line")
    assert [entry[:3] for entry in ledger] == [
        (3, "rule.required", "note"),
        (4, "rule.length", "name"),
        (5, "rule.pattern", "note"),
        (6, "rule.enum", "name"),
        (7, "rule.range", "amount"),
        (8, "rule.unique", "note"),
        (9, "rule.cross_field", "amount"),
    ]
    assert ledger[4][3] == "an amount is a percentage"
    assert {stage_of(entry[1]) for entry in ledger} == {"validate"}
    assert things(imports) == [(1, "one")]
    assert (books(result), result.outcome) == ({"read": 8, "loaded": 1, "failed": 7}, Outcome.PARTIAL)


@pytest.mark.feature("S2-24", "S2-103")
def test_a_rule_of_another_package_refuses_rows_with_its_own_words(imports: ImportingAny, validators: None) -> None:
    rule = {"rule": "custom", "name": "not_listed", "columns": ["name"], "params": {"names": ["eve"]}}
    checked(imports, rules=[rule])

    imports.load("id,name\n1,ada\n2,eve\n", rules=[rule])

    assert imports.rows("SELECT line, code, message FROM failed_records") == [(3, "rule.custom", "eve is on the list")]


@pytest.mark.parametrize(("body", "commits"), [("csv", 5), ("ndjson", 4)])
def test_what_is_unique_is_the_same_however_often_the_import_was_killed(
    imports: ImportingAny, body: str, commits: int
) -> None:
    rows = [(n, f"n{n * 7 % 30}", "" if n % 13 == 0 else n % 40) for n in range(90)]
    lines = {
        "csv": "id,name,note\n" + "".join(f"{n},{name},{note}\n" for n, name, note in rows),
        "ndjson": "".join(f'{{"id":{n},"name":"{name}","note":"{note}"}}\n' for n, name, note in rows),
    }[body]
    config: dict[str, Any] = {
        "rules": [{"rule": "unique", "columns": ["note"]}, {"rule": "enum", "column": "name", "values": ["N1", "N2"]}],
        "transforms": [{"field": "name", "operation": "uppercase"}],
        "batch_rows": 15,
        "lanes": 2,
        "max_error_rate": 1.0,
    }
    whole = imports.submit(lines, **config)
    imports.run(imports.context(whole))
    expected = state(imports, whole)
    imports.rows("DELETE FROM t_default.things RETURNING id")
    killed = imports.submit(lines, **config)

    for _ in range(40):
        context = imports.context(killed)
        stop_after(context, commits=commits)
        try:
            imports.run(context)
            break
        except Killed:
            continue

    assert state(imports, killed) == expected
    assert context.job.fence > 2


@pytest.mark.feature("S2-29")
@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"transforms": [{"field": "name", "operation": "rot13"}]}, "/config/transforms/0/operation"),
        ({"transforms": [{"field": "name"}]}, "/config/transforms/0/operation"),
        ({"transforms": [{"field": "name", "operation": "split", "into": ["a"]}]}, "/config/transforms/0/into"),
        ({"transforms": [{"field": "name", "operation": "split", "into": ["a", "note"]}]}, "/config/transforms/0/into"),
        ({"transforms": [{"field": "x", "operation": "default", "value": "1"}]}, "/config/transforms/0/field"),
        ({"rules": [{"rule": "required", "column": "nmae"}]}, "/config/rules/0"),
        ({"rules": [{"rule": "range", "column": "name", "min": 1}]}, "/config/rules/0"),
        ({"rules": [{"rule": "pattern", "column": "name", "pattern": "(?=a)"}]}, "/config/rules/0/pattern"),
        ({"rules": [{"rule": "custom", "name": "none", "columns": ["name"]}]}, "/config/rules/0/name"),
        ({"rules": [{"rule": "custom", "name": "broken", "columns": ["name"]}]}, "/config/rules/0/name"),
        ({"auto_map": {"threshold": 2}}, "/config/auto_map/threshold"),
        ({"header": 5}, "/config/header"),
    ],
)
def test_a_config_that_cannot_be_done_is_refused_at_submit(
    imports: ImportingAny, validators: None, config: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, **config)

    assert {problem.pointer for problem in raised.value.problems} == {pointer}


@pytest.mark.parametrize(
    "config",
    [
        {"transforms": [{"field": "nowhere", "operation": "trim"}]},
        {"rules": [{"rule": "required", "column": "note"}]},
    ],
)
def test_a_field_that_the_file_does_not_have_ends_the_job_before_a_row_is_written(
    imports: ImportingAny, config: dict[str, Any]
) -> None:
    with pytest.raises(HaulierError) as raised:
        imports.load("id,name\n1,one\n", **config)

    assert (raised.value.code, things(imports)) == ("import.field_unknown", [])
    assert raised.value.code in REMEDIES


def test_a_field_that_is_misspelt_is_told_with_the_nearest(imports: ImportingAny) -> None:
    with pytest.raises(HaulierError) as raised:
        imports.load("id,name\n1,one\n", transforms=[{"field": "nmae", "operation": "trim"}])

    assert raised.value.hint == "The nearest is 'name'."
