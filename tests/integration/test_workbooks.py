"""Workbooks: named groups of tables, imports of all sheets, looks at them before, and declarations out of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.bootstrap import Services
from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.services import inference
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny
from tests.workbooks import number, row, text, workbook

PEOPLE = Table("people", (Column("id", ColumnType.INTEGER), Column("name", ColumnType.TEXT)), ("id",))
ORDERS = Table("orders", (Column("code", ColumnType.TEXT), Column("amount", ColumnType.NUMERIC)), ("code",))
SHEETS = [{"sheet": "Sheet1", "table": "people"}, {"sheet": "Sheet2", "table": "orders"}]
BOOK = workbook(
    row(1, [text("id"), text("name")]) + row(2, [number("1"), text("Ada")]) + row(3, [text("x"), text("bad")]),
    row(1, [text("code"), text("amount")]) + row(2, [text("a1"), number("1.5")]) + row(3, [text("a2"), number("2")]),
    "",
)


@pytest.fixture
def imports(settings: Settings, web_services: Services, objects: ObjectStore) -> ImportingAny:
    for table in (PEOPLE, ORDERS):
        Tables(web_services.sessions).declare("default", table)
    return ImportingAny(settings, web_services.sessions, objects)


@pytest.fixture
def crm(imports: ImportingAny, admin: Client) -> str:
    """A workbook of two sheets."""
    assert admin.post("/v1/workbooks", {"name": "crm", "sheets": SHEETS}).status_code == 201
    return "crm"


def asked(client: Client, config: dict[str, Any], **more: Any) -> Any:
    return client.post("/v1/jobs", {"type": "import", "config": config, **more})


def pointers(answer: Any) -> list[str]:
    assert answer.status_code == 422, answer.get_json()
    return [problem["pointer"] for problem in answer.get_json()["errors"]]


@pytest.mark.feature("S2-101")
def test_a_workbook_is_made_read_changed_and_forgotten(imports: ImportingAny, admin: Client, member: Client) -> None:
    made = admin.post("/v1/workbooks", {"name": "crm", "sheets": SHEETS})
    again = admin.post("/v1/workbooks", {"name": "crm", "sheets": SHEETS})
    listed = member.get("/v1/workbooks").get_json()["items"]
    changed = admin.call("PATCH", made.headers["Location"], json={"sheets": SHEETS[:1]})
    not_ours = member.delete(made.headers["Location"])
    gone = admin.delete(made.headers["Location"])

    assert (made.status_code, made.get_json()["sheets"]) == (201, SHEETS)
    assert (again.status_code, again.get_json()["code"]) == (409, "workbook.exists")
    assert [one["name"] for one in listed] == ["crm"]
    assert (changed.status_code, changed.get_json()["sheets"]) == (200, SHEETS[:1])
    assert (not_ours.status_code, gone.status_code) == (403, 204)
    assert member.get("/v1/workbooks/crm").get_json()["code"] == "workbook.not_found"
    assert imports.rows("SELECT what, after = 'null' FROM changes ORDER BY id") == [
        ("workbook crm", False),
        ("workbook crm", False),
        ("workbook crm", True),
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "No Name"}, "/name"),
        ({"sheets": []}, "/sheets"),
        ({"sheets": [*SHEETS, SHEETS[0]]}, "/sheets/2/sheet"),
        ({"sheets": [SHEETS[0], {"sheet": "b", "table": "nobody"}]}, "/sheets/1/table"),
    ],
)
def test_a_workbook_that_no_file_could_be_loaded_by_is_refused(
    imports: ImportingAny, admin: Client, body: dict[str, Any], pointer: str
) -> None:
    answer = admin.post("/v1/workbooks", {"name": "crm", "sheets": SHEETS, **body})

    assert pointers(answer) == [pointer]


def children(member: Client, answer: Any) -> dict[str, dict[str, Any]]:
    """The imports that a request has made, by their sheet."""
    assert answer.status_code == 202, answer.get_json()
    assert answer.get_json()["type"] == "batch"
    found = member.get(f"/v1/jobs/{answer.get_json()['id']}/children").get_json()["items"]
    return {child["name"]: child for child in found}


def done(imports: ImportingAny, child: dict[str, Any]) -> Result:
    return imports.run(imports.context(UUID(child["id"])))


@pytest.mark.feature("S2-101")
def test_each_sheet_goes_to_its_table(imports: ImportingAny, crm: str, member: Client) -> None:
    source = {"s3": {"key": imports.put(BOOK)}}

    jobs = children(member, asked(member, {"workbook": crm, "source": source}, labels={"of": "may"}))
    results = {sheet: done(imports, child) for sheet, child in jobs.items()}

    assert {sheet: result.data["books"]["loaded"] for sheet, result in results.items()} == {"Sheet1": 1, "Sheet2": 2}
    assert imports.rows("SELECT id, name FROM t_default.people") == [(1, "Ada")]
    assert imports.rows("SELECT code, amount::text FROM t_default.orders ORDER BY code") == [("a1", "1.5"), ("a2", "2")]
    assert imports.ledger(UUID(jobs["Sheet1"]["id"])) == [(3, "value.integer", "id", '{"id":"x","name":"bad"}')]


def test_a_request_that_is_sent_again_makes_no_second_batch(imports: ImportingAny, crm: str, member: Client) -> None:
    config = {"workbook": crm, "source": {"s3": {"key": imports.put(BOOK)}}}

    first, second = (
        member.post("/v1/jobs", {"type": "import", "config": config}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )

    assert second.get_json()["id"] == first.get_json()["id"]
    assert second.headers["Idempotent-Replayed"] == "true"


def test_all_sheets_are_looked_at_before_and_nothing_is_written(
    imports: ImportingAny, crm: str, member: Client
) -> None:
    config = {"workbook": crm, "source": {"s3": {"key": imports.put(BOOK)}}, "validate_only": True}

    jobs = children(member, asked(member, config))
    results = {sheet: done(imports, child).data for sheet, child in jobs.items()}

    assert {sheet: (data["passed"], data["records"]["read"]) for sheet, data in results.items()} == {
        "Sheet1": (False, 2),
        "Sheet2": (True, 2),
    }
    assert results["Sheet1"]["rejects"][0]["code"] == "value.integer"
    assert imports.rows("SELECT FROM t_default.people UNION ALL SELECT FROM t_default.orders") == []


def test_a_file_that_is_no_workbook_says_so(imports: ImportingAny, crm: str, member: Client) -> None:
    jobs = children(member, asked(member, {"workbook": crm, "source": {"text": "id,name\n1,Ada\n"}}))

    with pytest.raises(JobError, match="expected xlsx, got csv"):
        done(imports, jobs["Sheet1"])


def test_a_sheet_that_is_not_there_fails_by_itself_and_says_which_are(
    imports: ImportingAny, admin: Client, member: Client
) -> None:
    admin.post("/v1/workbooks", {"name": "crm", "sheets": [*SHEETS, {"sheet": "Other", "table": "people"}]})
    jobs = children(member, asked(member, {"workbook": "crm", "source": {"s3": {"key": imports.put(BOOK)}}}))

    with pytest.raises(JobError, match="expected one of the sheets 'Sheet1', 'Sheet2', 'Sheet3', got 'Other'"):
        done(imports, jobs["Other"])


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"workbook": "none"}, "/config/workbook"),
        ({"workbook": 3}, "/config/workbook"),
        ({"table": "people"}, "/config/table"),
        ({"sheet": "Sheet1"}, "/config/sheet"),
        ({"mapping": {}}, "/config/mapping"),
        ({"format": "csv"}, "/config/format"),
        ({"rules": [{"rule": "required", "column": "name"}]}, "/config/rules/0"),
        ({"source": {"s3": {"key": "nothing.xlsx"}}, "validate_only": True}, "/config/source"),
    ],
)
def test_an_import_that_does_not_fit_the_workbook_is_refused_at_once(
    imports: ImportingAny, crm: str, member: Client, config: dict[str, Any], pointer: str
) -> None:
    answer = asked(member, {"workbook": crm, "source": {"s3": {"key": "a.xlsx"}}, **config})

    assert pointers(answer) == [pointer]
    assert imports.rows("SELECT FROM jobs") == []


def test_a_workbook_elsewhere_than_in_a_request_for_a_job_is_refused(crm: str, member: Client) -> None:
    payload = {"type": "import", "config": {"workbook": crm, "source": {"s3": {"key": "a.xlsx"}}}}

    answer = member.post("/v1/batches", {"payloads": [payload]})

    assert pointers(answer) == ["/config/workbook"]
    assert "POST /v1/jobs" in answer.get_json()["detail"]


def inferred(imports: ImportingAny, member: Client, body: bytes, name: str = "crm") -> Any:
    return member.post("/v1/tables:infer", {"name": name, "source": {"s3_key": imports.put(body)}})


def test_a_declaration_for_each_sheet_is_proposed_and_can_be_used_as_it_is(
    imports: ImportingAny, admin: Client
) -> None:
    proposal = inferred(imports, admin, BOOK).get_json()
    for sheet in proposal["sheets"]:
        assert admin.post("/v1/tables", sheet["declaration"]).status_code == 201
    made = admin.post("/v1/workbooks", proposal["workbook"])

    assert proposal.keys() == {"sheets", "workbook"}
    assert made.get_json()["sheets"] == [
        {"sheet": "Sheet1", "table": "crm_sheet1"},
        {"sheet": "Sheet2", "table": "crm_sheet2"},
    ]
    assert [
        [(column["name"], column["type"]) for column in sheet["declaration"]["columns"]] for sheet in proposal["sheets"]
    ] == [[("id", "text"), ("name", "text")], [("code", "text"), ("amount", "numeric")]]
    assert [sheet["declaration"]["key"] for sheet in proposal["sheets"]] == [["id"], ["code"]]
    assert proposal["sheets"][0]["file"]["format"] == "xlsx"


def test_a_workbook_of_one_sheet_is_called_as_it_is_to_be(imports: ImportingAny, admin: Client) -> None:
    proposal = inferred(imports, admin, workbook(row(1, [text("id")]) + row(2, [number("1")]))).get_json()

    assert [sheet["declaration"]["name"] for sheet in proposal["sheets"]] == ["crm"]


@pytest.mark.parametrize(
    ("limit", "code"), [("_MOST_BYTES", "xlsx.too_large"), ("_MOST_SHEETS", "xlsx.too_large"), (None, "csv.empty")]
)
def test_a_workbook_that_is_too_large_for_a_request_or_empty_is_refused(
    imports: ImportingAny, admin: Client, monkeypatch: pytest.MonkeyPatch, limit: str | None, code: str
) -> None:
    if limit:
        monkeypatch.setattr(inference, limit, 1)

    answer = inferred(imports, admin, BOOK if limit else workbook(""))

    assert pointers(answer) == ["/source"]
    assert answer.get_json()["code"] == code


def test_a_broken_workbook_is_refused(imports: ImportingAny, admin: Client) -> None:
    answer = inferred(imports, admin, BOOK[:-200].replace(b"xl/workbook.xml", b"xl/workbook.xmm"))

    assert pointers(answer) == ["/source"]
