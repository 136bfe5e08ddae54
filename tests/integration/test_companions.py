"""Companies that come beside contacts: one row a company, linked, in the contacts' own transaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from app.dataplane.batches import KEY_NAMESPACE
from app.domain.errors import InvalidRequestError, JobError
from app.domain.ports import ObjectStore
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from app.services.upserts import Upserts
from config.settings import Settings
from tests.integration.imports import Importing

ACME = uuid5(KEY_NAMESPACE, "Acme\x1flinkedin.com/acme")
HEADER = "first_name,last_name,linkedin_url,company_name,company_linkedin_url,company_employees_count\n"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    importing = Importing(settings, sessions, objects)
    Tables(sessions).get("default", "companies")
    return importing


def companies(imports: Importing) -> list[tuple[Any, ...]]:
    return imports.rows("SELECT uuid, name, employees_count FROM t_default.companies ORDER BY name")


def counters(imports: Importing, job_id: UUID) -> dict[str, int]:
    with imports.sessions.begin() as session:
        counted = jobs.get(session, "default", job_id).counters
    return {name: count for name, count in counted.items() if name.startswith("companies")}


@pytest.mark.feature("S4-24")
def test_contacts_of_one_company_make_one_row_and_the_last_line_wins(imports: Importing) -> None:
    body = HEADER + "Ada,L,a,Acme,linkedin.com/acme,10\nBob,M,b,Acme,linkedin.com/acme,12\n"
    job_id = imports.submit(body, companions=True, lanes=1)

    result = imports.run(imports.context(job_id))

    assert result.data["books"]["loaded"] == 2
    assert companies(imports) == [(ACME, "Acme", 12)]
    assert imports.rows("SELECT DISTINCT company_id FROM t_default.contacts") == [(ACME,)]
    assert imports.rows("SELECT haulier_job_id FROM t_default.companies") == [(job_id,)]
    assert counters(imports, job_id) == {"companies_loaded": 1, "companies_updated": 0}


def test_a_second_import_changes_only_what_the_file_brings_and_differs(imports: Importing) -> None:
    imports.load(HEADER + "Ada,L,a,Acme,linkedin.com/acme,10\nEve,O,e,Other,,3\n", companions=True)
    before = imports.rows("SELECT name, haulier_updated_at FROM t_default.companies ORDER BY name")
    body = "first_name,last_name,linkedin_url,company_name,company_linkedin_url,company_city\n"
    job_id = imports.submit(body + "Ada,L,a,Acme,linkedin.com/acme,Ulm\nEve,O,e,Other,,\n", companions=True)

    imports.run(imports.context(job_id))

    after = imports.rows("SELECT name, haulier_updated_at FROM t_default.companies ORDER BY name")
    assert imports.rows("SELECT name, city, employees_count FROM t_default.companies ORDER BY name") == [
        ("Acme", "Ulm", 10),
        ("Other", None, 3),
    ]
    assert after[0] > before[0]
    assert after[1] == before[1]
    assert counters(imports, job_id) == {"companies_loaded": 0, "companies_updated": 1}


def test_a_company_id_of_the_file_is_the_companys_key(imports: Importing) -> None:
    brought = uuid4()
    body = "first_name,company_id,company_name\n" + f"Ada,{str(brought).upper()},Acme\nBob,,Acme\nCid,{brought},\n"

    imports.load(body, companions=True)

    generated = uuid5(KEY_NAMESPACE, "Acme\x1f")
    assert {row[0] for row in companies(imports)} == {brought, generated}
    assert imports.rows("SELECT first_name, company_id FROM t_default.contacts ORDER BY first_name") == [
        ("Ada", brought),
        ("Bob", generated),
        ("Cid", brought),
    ]


def test_a_line_without_a_company_name_makes_none(imports: Importing) -> None:
    imports.load(HEADER + "Ada,L,a,,linkedin.com/acme,10\n", companions=True)

    assert companies(imports) == []
    assert imports.rows("SELECT first_name, company_id FROM t_default.contacts") == [("Ada", None)]


def test_a_bad_company_value_puts_the_line_into_the_ledger(imports: Importing) -> None:
    job_id = imports.submit(HEADER + "Ada,L,a,Acme,,many\nBob,M,b,Acme,,7\n", companions=True)

    result = imports.run(imports.context(job_id))

    assert result.data["books"]["failed"] == 1
    assert imports.ledger(job_id) == [(2, "value.integer", "company_employees_count", "Ada,L,a,Acme,,many")]
    assert [row[2] for row in companies(imports)] == [7]


def test_a_company_that_only_postgres_refuses_costs_its_own_lines_alone(imports: Importing) -> None:
    # Longer than an entry of the index on the name may be, and not to be compressed.
    name = "".join(uuid4().hex for _ in range(400))
    lines = [f"P{number},L,p{number},Firm{number % 3},,{number}\n" for number in range(20)]
    job_id = imports.submit(HEADER + "".join([*lines[:9], f"Bad,L,bad,{name},,1\n", *lines[9:]]), companions=True)

    result = imports.run(imports.context(job_id))

    assert (result.data["books"]["loaded"], result.data["books"]["failed"]) == (20, 1)
    assert [(line, code) for line, code, _, _ in imports.ledger(job_id)] == [(11, "db.54000")]
    assert [row[1] for row in companies(imports)] == ["Firm0", "Firm1", "Firm2"]


def test_lists_and_awkward_characters_of_companies_survive(imports: Importing) -> None:
    body = 'first_name,company_name,company_industries,company_address\nAda,"A\tB\\N",x; y,"one\ntwo"\n'

    imports.load(body, companions=True)

    assert imports.rows("SELECT name, industries, address FROM t_default.companies") == [
        ("A\tB\\N", ["x", "y"], "one\ntwo")
    ]


def test_without_companions_their_headers_are_unknown(imports: Importing) -> None:
    with pytest.raises(JobError) as raised:
        imports.load("first_name,company_name\nAda,Acme\n")

    assert raised.value.code == "csv.header_unknown"


def test_columns_of_a_company_without_its_name_are_refused_or_left_out(imports: Importing) -> None:
    body = "first_name,company_city\nAda,Ulm\n"
    with pytest.raises(JobError) as raised:
        imports.load(body, companions=True)

    imports.load(body, companions=True, ignore_unknown=True)

    assert raised.value.code == "csv.header_missing"
    assert "company_name" in raised.value.detail
    assert companies(imports) == []


@pytest.mark.parametrize("config", [{"table": "companies"}, {"mode": "insert"}])
def test_companions_are_refused_where_there_can_be_none(imports: Importing, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        imports.load("name,first_name\nA,B\n", companions=True, **config)

    assert raised.value.code == "companions.unsupported"
    assert raised.value.problems[0].pointer == "/config/companions"


def test_jobs_and_lanes_that_meet_on_the_same_companies_all_end(imports: Importing) -> None:
    def file(offset: int) -> str:
        lines = [f"P{offset + n},L,p{offset + n},Firm{n * 7 % 11},,{offset + n}\n" for n in range(400)]
        return HEADER + "".join(lines)

    contexts = [imports.context(imports.submit(file(k * 400), companions=True, lanes=3, batch_rows=40)) for k in (0, 1)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(imports.run, contexts))

    assert [result.data["books"]["loaded"] for result in results] == [400, 400]
    assert len(companies(imports)) == 11
    assert imports.rows(
        "SELECT count(*) FROM t_default.contacts JOIN t_default.companies ON companies.uuid = company_id"
    ) == [(800,)]


def test_killed_between_batches_every_contact_has_its_company(imports: Importing, monkeypatch: Any) -> None:
    class Killed(BaseException):
        pass

    body = HEADER + "".join(f"P{n},L,p{n},Firm{n % 5},,{n}\n" for n in range(200))
    job_id = imports.submit(body, companions=True, batch_rows=20, lanes=2)
    context = imports.context(job_id)
    heeded = context.heed
    calls = iter(range(1000))

    def heed(signals: Any) -> None:
        if next(calls) == 6:
            raise Killed
        heeded(signals)

    monkeypatch.setattr(context, "heed", heed)
    with pytest.raises(Killed):
        imports.run(context)
    linked = imports.rows(
        "SELECT count(*) FROM t_default.contacts LEFT JOIN t_default.companies ON companies.uuid = company_id "
        "WHERE companies.uuid IS NULL"
    )

    result = imports.run(imports.context(job_id))

    assert linked == [(0,)]
    assert result.data["books"]["loaded"] == 200
    assert len(companies(imports)) == 5


def test_an_import_runs_on_a_connection_that_an_upsert_has_used(imports: Importing, sessions: Sessions) -> None:
    upserts = Upserts(sessions, Tables(sessions), imports.settings)
    upserts.upsert("default", "contacts", [{"first_name": "Ada", "company_name": "Acme"}], companions=True)

    result = imports.load("first_name,company_name\nAda,Acme\nBob,Acme\n", companions=True)

    assert (result.data["books"]["loaded"], result.data["books"]["unchanged"]) == (1, 1)
    assert len(companies(imports)) == 1
