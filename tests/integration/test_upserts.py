"""Direct upserts: the service, the native route and Connectra's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4, uuid5

import pytest
from sqlalchemy import text

from app.dataplane.batches import KEY_NAMESPACE
from app.dataplane.plan import Mode
from app.domain.errors import InvalidRequestError, UnavailableError
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from app.services.upserts import Upserts
from config.settings import Settings
from tests.integration.conftest import Client

THINGS = Table(
    name="things",
    columns=(
        Column("id", ColumnType.BIGINT),
        Column("name", ColumnType.TEXT, max_length=40),
        Column("amount", ColumnType.NUMERIC),
        Column("good", ColumnType.BOOLEAN),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("extra", ColumnType.JSON),
        Column("note", ColumnType.TEXT),
    ),
    key=("id",),
    indexes=(Index(("note",)),),
    aliases={"label": "name"},
)
MEASURES = Table(
    name="measures",
    columns=(Column("at", ColumnType.NUMERIC), Column("v", ColumnType.TEXT), Column("w", ColumnType.TEXT)),
    key=("at",),
)


@pytest.fixture
def upserts(sessions: Sessions, settings: Settings) -> Upserts:
    tables = Tables(sessions)
    tables.declare("default", THINGS)
    tables.declare("default", MEASURES)
    return Upserts(sessions, tables, settings)


def rows(sessions: Sessions, statement: str) -> list[tuple[Any, ...]]:
    with sessions.begin() as session:
        return [tuple(row) for row in session.execute(text(statement))]


def counted(report: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in report.items() if isinstance(count, int) and count}


def test_values_of_every_json_type_become_rows(upserts: Upserts, sessions: Sessions) -> None:
    report = upserts.upsert(
        "default",
        "things",
        [
            {"id": 1, "Label": "\t\\N\n", "amount": 1.5, "good": True, "tags": ["a;", 'c"', None], "extra": {"k": [1]}},
            {"id": "2", "Label": 7, "amount": "1e3", "good": "no", "tags": "x; y", "extra": "text"},
            {"id": 3, "Label": None, "amount": None, "good": None, "tags": [], "extra": None},
        ],
    )  # fmt: skip

    assert counted(report) == {"inserted": 3}
    assert (report["failed"], report["uuids"]) == ([], None)
    assert rows(sessions, "SELECT id, name, amount, good, tags, extra FROM t_default.things ORDER BY id") == [
        (1, "\t\\N\n", 1.5, True, ["a;", 'c"', None], {"k": [1]}),
        (2, "7", 1000, False, ["x", "y"], "text"),
        (3, None, None, None, [], None),
    ]


def test_what_is_there_is_updated_only_when_it_differs_and_keeps_what_a_row_lacks(
    upserts: Upserts, sessions: Sessions
) -> None:
    upserts.upsert("default", "things", [{"id": 1, "name": "one", "note": "kept"}, {"id": 2, "name": "two"}])
    before = rows(sessions, "SELECT haulier_updated_at FROM t_default.things WHERE id = 2")

    report = upserts.upsert("default", "things", [{"id": 1, "name": "uno"}, {"name": "two", "id": 2}, {"id": 3}])

    assert counted(report) == {"inserted": 1, "updated": 1, "unchanged": 1}
    assert rows(sessions, "SELECT id, name, note FROM t_default.things ORDER BY id") == [
        (1, "uno", "kept"),
        (2, "two", None),
        (3, None, None),
    ]
    assert rows(sessions, "SELECT haulier_updated_at FROM t_default.things WHERE id = 2") == before


def test_of_rows_with_one_key_the_last_wins_in_one_shape_or_several(upserts: Upserts, sessions: Sessions) -> None:
    same = upserts.upsert("default", "things", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "c"}])
    mixed = upserts.upsert(
        "default", "things", [{"id": 1, "note": "n"}, {"id": 1, "name": "d"}, {"id": 1, "note": "m"}]
    )

    assert counted(same) == {"inserted": 2, "superseded": 1}
    assert counted(mixed) == {"updated": 3}
    assert rows(sessions, "SELECT id, name, note FROM t_default.things ORDER BY id") == [(1, "d", "m"), (2, "b", None)]


def test_keys_that_only_postgres_can_compare_recur_too(upserts: Upserts, sessions: Sessions) -> None:
    report = upserts.upsert(
        "default",
        "measures",
        [{"at": 1.0, "v": "a"}, {"at": "1.00", "v": "b"}, {"at": 1, "w": "c"}, {"at": 2, "v": "d"}],
    )

    assert counted(report) == {"inserted": 2, "updated": 1, "superseded": 1}
    assert rows(sessions, "SELECT at, v, w FROM t_default.measures ORDER BY at") == [(1, "b", "c"), (2, "d", None)]


@pytest.mark.parametrize(
    ("row", "field", "code"),
    [
        ({"id": "x"}, "id", "value.bigint"),
        ({"id": 1.5}, "id", "value.bigint"),
        ({"id": None}, "id", "value.required"),
        ({"name": "no id"}, "id", "value.required"),
        ({}, "id", "value.required"),
        ({"id": 1, "name": "x" * 41}, "name", "value.too_long"),
        ({"id": 1, "name": ["a"]}, "name", "value.text"),
        ({"id": 1, "name": "a\0b"}, "name", "value.nul"),
        ({"id": 1, "name": "\ud800"}, "name", "value.encoding"),
        ({"id": 1, "good": 2}, "good", "value.boolean"),
        ({"id": 1, "tags": {"a": 1}}, "tags", "value.array"),
        ({"id": 1, "tags": [["a"]]}, "tags", "value.array"),
        ({"id": 1, "extra": {"a": "\0"}}, "extra", "value.json"),
        ({"id": 1, "extra": float("nan")}, "extra", "value.json"),
        ({"id": 1, "note": "".join(uuid4().hex for _ in range(300))}, None, "db.54000"),
    ],
)  # fmt: skip
def test_a_bad_row_is_reported_and_keeps_none_of_the_others_out(
    upserts: Upserts, sessions: Sessions, row: dict[str, Any], field: str | None, code: str
) -> None:
    report = upserts.upsert("default", "things", [{"id": 8, "note": "a"}, row, {"id": 9, "note": "b"}])

    (failed,) = report["failed"]
    assert (failed["row"], failed["field"], failed["code"]) == (1, field, code)
    assert failed["message"]
    assert counted(report) == {"inserted": 2}
    assert rows(sessions, "SELECT id FROM t_default.things ORDER BY id") == [(8,), (9,)]


def test_an_unknown_column_is_refused_with_its_pointer_and_the_nearest_name(
    upserts: Upserts, sessions: Sessions
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        upserts.upsert("default", "things", [{"id": 1}, {"id": 2, "nmae": "x", "a/b": 1}])

    assert [problem.pointer for problem in raised.value.problems] == ["/data/1/nmae", "/data/1/a~1b"]
    assert "'name'" in raised.value.problems[0].detail
    assert rows(sessions, "SELECT id FROM t_default.things") == []


def test_a_column_that_a_row_names_twice_is_refused(upserts: Upserts) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        upserts.upsert("default", "things", [{"id": 1, "name": "x", "label": "y"}])

    assert raised.value.problems[0].pointer == "/data/0/label"


def test_more_rows_than_a_request_may_have_are_refused(upserts: Upserts) -> None:
    whole = upserts.upsert("default", "things", [{"id": number} for number in range(1_000)])

    with pytest.raises(InvalidRequestError) as raised:
        upserts.upsert("default", "things", [{"id": number} for number in range(1_001)])

    assert counted(whole) == {"inserted": 1_000}
    assert raised.value.code == "upsert.too_many_rows"
    assert "1,000" in raised.value.detail


def test_modes_leave_alone_what_they_are_not_for(upserts: Upserts, sessions: Sessions) -> None:
    upserts.upsert("default", "things", [{"id": 1, "name": "one"}])

    inserted = upserts.upsert("default", "things", [{"id": 1, "name": "x"}, {"id": 2, "name": "two"}], mode=Mode.INSERT)
    updated = upserts.upsert("default", "things", [{"id": 2, "name": "zwei"}, {"id": 3}], mode=Mode.UPDATE)

    assert counted(inserted) == {"inserted": 1, "skipped": 1}
    assert counted(updated) == {"updated": 1, "skipped": 1}
    assert rows(sessions, "SELECT id, name FROM t_default.things ORDER BY id") == [(1, "one"), (2, "zwei")]


def test_contacts_come_with_their_companies_and_the_keys_of_imports(upserts: Upserts, sessions: Sessions) -> None:
    brought = uuid4()
    acme = uuid5(KEY_NAMESPACE, "Acme\x1f")

    report = upserts.upsert(
        "default",
        "contacts",
        [
            {"first_name": "Ada", "last_name": "L", "company_name": "Acme", "company_industries": ["x"]},
            {"uuid": str(brought).upper(), "first_name": "Bob", "company_name": "Acme", "company_employees_count": 5},
            {"first_name": "Cid", "company_name": "Acme", "company_employees_count": "many"},
            {"first_name": "Dora"},
        ],
        companions=True,
    )

    keys = [str(uuid5(KEY_NAMESPACE, parts)) for parts in ("Ada\x1fL\x1f", "Dora\x1f\x1f")]
    assert report["uuids"] == [keys[0], str(brought), None, keys[1]]
    assert [(failed["row"], failed["field"]) for failed in report["failed"]] == [(2, "company_employees_count")]
    assert counted(report) == {"inserted": 3, "companies_inserted": 1, "companies_updated": 1}
    assert rows(sessions, "SELECT uuid, name, industries, employees_count FROM t_default.companies") == [
        (acme, "Acme", ["x"], 5)
    ]
    assert rows(sessions, "SELECT first_name, company_id FROM t_default.contacts ORDER BY first_name") == [
        ("Ada", acme),
        ("Bob", acme),
        ("Dora", None),
    ]


def test_without_companions_their_columns_are_unknown(upserts: Upserts) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        upserts.upsert("default", "contacts", [{"first_name": "Ada", "company_name": "Acme"}])

    assert raised.value.problems[0].pointer == "/data/0/company_name"


def test_rows_that_another_writer_holds_for_long_are_refused_for_now(
    sessions: Sessions, settings: Settings, upserts: Upserts
) -> None:
    upserts.upsert("default", "things", [{"id": 1}])
    hasty = Upserts(sessions, Tables(sessions), settings.model_copy(update={"statement_timeout_s": 0.2}))

    with sessions.begin() as session:
        session.execute(text("UPDATE t_default.things SET name = 'held'"))
        with pytest.raises(UnavailableError) as raised:
            hasty.upsert("default", "things", [{"id": 0}, {"id": 1, "name": "x"}])

    assert raised.value.code == "upsert.timeout"
    assert rows(sessions, "SELECT id, name FROM t_default.things") == [(1, "held")]


def test_the_native_route_writes_and_reports(member: Client, stranger: Client) -> None:
    path = "/v1/tables/contacts/records:upsert"

    written = member.post(path, {"rows": [{"first_name": "Ada"}, {"first_name": "Bob", "email": "bad"}]})
    updated = member.post(path, {"rows": [{"first_name": "Ada", "title": "x"}], "mode": "insert"})
    refused = member.post(path, {"rows": [{"frist_name": "Ada"}]})
    empty = member.post(path, {"rows": []})
    missing = member.post("/v1/tables/nothing/records:upsert", {"rows": [{"a": 1}]})
    theirs = stranger.post("/v1/tables/contacts/records:count", {})

    assert written.status_code == 200
    assert (written.get_json()["inserted"], written.get_json()["failed"][0]["code"]) == (1, "value.email")
    assert updated.get_json()["skipped"] == 1
    assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "/rows/0/frist_name")
    assert "first_name" in refused.get_json()["errors"][0]["detail"]
    assert (empty.status_code, missing.status_code) == (422, 404)
    assert theirs.get_json() == {"count": 0}


def test_connectras_batch_upserts_answer_in_its_form(member: Client) -> None:
    both = member.post("/common/batch-upsert", {"data": [{"first_name": "Ada", "company_name": "Acme"}]})
    contacts = member.post("/contacts/batch-upsert", {"data": [{"first_name": "Ada", "phone": "1"}]})
    companies = member.post("/companies/batch-upsert", {"data": [{"name": "Acme", "annual_revenue": 5}]})
    unknown = member.post("/companies/batch-upsert", {"data": [{"nmae": "Acme"}]})
    shapeless = member.post("/contacts/batch-upsert", {"data": {"first_name": "Ada"}})

    assert both.status_code == 200
    body = both.get_json()
    assert (body["success"], body["inserted"], body["companies_inserted"]) == (True, 1, 1)
    assert contacts.get_json()["updated"] == 1
    assert companies.get_json()["updated"] == 1
    assert (unknown.status_code, unknown.get_json()["success"]) == (400, False)
    assert "/data/0/nmae" in unknown.get_json()["error"]
    assert shapeless.status_code == 400
