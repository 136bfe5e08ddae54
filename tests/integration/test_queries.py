"""Queries that are answered whole: explained and previewed before, streamed at once or made a job."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from app.bootstrap import Services, build_services
from app.dataplane.explaining import explain
from app.dataplane.export_columns import Selection, columns_of, select_rows
from app.dataplane.export_formats import FileFormat
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.parser import parse
from app.domain.access import Role
from app.domain.errors import InvalidRequestError
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.queries import Mode
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.queries import Asked, Streamed
from app.services.reading import Reading
from app.services.tables import Tables
from app.web.current import attach
from config.settings import Settings
from tasks.types.export_rows import JOB_TYPE as EXPORT
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt, within

PEOPLE = Table(
    "people",
    (
        Column("id", ColumnType.BIGINT),
        Column("title", ColumnType.TEXT),
        Column("country", ColumnType.TEXT),
        Column("pay", ColumnType.NUMERIC),
        Column("note", ColumnType.TEXT),
    ),
    key=("id",),
    indexes=(Index(("country",)), Index(("title",), trigram=True), Index(("title",), words=True)),
)
ROWS = 2_000
FILL = """
INSERT INTO t_default.people (id, title, country, pay)
SELECT n, (ARRAY['Software Engineer', 'Head of Sales', 'Nurse, "Night"', NULL])[1 + n % 4] || ' ' || n,
       'C' || n % 50, n + 0.10 FROM generate_series(1, CAST(:rows AS bigint)) AS n
"""
GERMANS = {"where": {"keyword_match": {"must": {"country": "C7"}}}}
Make = Callable[..., Client]


@pytest.fixture
def people(sessions: Sessions) -> Table:
    table = Tables(sessions).declare("default", PEOPLE)
    fill(sessions, ROWS)
    return table


def fill(sessions: Sessions, rows: int) -> None:
    with sessions.begin() as session:
        session.execute(text(FILL), {"rows": rows})
        session.execute(text("ANALYZE t_default.people"))


@pytest.fixture
def make(settings: Settings, web_app: Flask) -> Iterator[Make]:
    """Gives the application use cases with other settings, and makes a client of it; the last ones count."""
    made: list[Services] = []

    def make(**changes: object) -> Client:
        changed = settings.model_copy(update={"query_job_load": 1e9, **changes})
        services = build_services(changed, application_name="tests queries", pool_size=8)
        made.append(services)
        key, _ = services.keys.create("default", Role.MEMBER, created_by="tests")
        attach(web_app, services)
        return Client(web_app, key)

    yield make
    for services in made:
        services.sessions.kw["bind"].dispose()


@pytest.fixture
def client(make: Make, people: Table) -> Client:
    return make()


def services_of(client: Client) -> Services:
    services: Services = client.app.extensions["haulier"]
    return services


def ask(client: Client, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return client.post("/v1/queries", {"table": "people", **body}, headers=headers or {})


def estimate_of(client: Client, vql: dict[str, Any], file_format: str = "ndjson") -> dict[str, Any]:
    answer = client.post("/v1/tables/people/records:explain", {"vql": vql, "format": file_format})
    estimate: dict[str, Any] = answer.get_json()["estimate"]
    return estimate


# Looked at before


@pytest.mark.feature("S4-128")
def test_explain_tells_cost_indexes_and_time_and_shows_values_apart_from_the_sql(client: Client) -> None:
    body = client.post("/v1/tables/people/records:explain", {"vql": GERMANS}).get_json()

    assert body["indexes"] == ["people_country_idx"]
    assert body["whole_tables"] == []
    assert body["estimate"]["rows"] == ROWS // 50
    assert body["estimate"]["cost"] > 0
    assert body["estimated_ms"] >= 0
    assert body["becomes_job"] is None
    assert {step["index"] for step in body["plan"]} >= {"people_country_idx"}
    assert "C7" not in body["sql"]
    assert list(body["parameters"].values()) == ["C7"]
    whole = client.post("/v1/tables/people/records:explain", {}).get_json()
    assert whole["whole_tables"] == ["people"]


@pytest.mark.feature("S4-108")
def test_a_preview_gives_first_rows_estimate_and_plan_and_makes_no_job(client: Client) -> None:
    vql = {**GERMANS, "select_columns": ["id", "country"], "order_by": [{"order_by": "id"}]}

    body = client.post("/v1/tables/people/records:preview", {"vql": vql, "limit": 3}).get_json()

    assert body["items"] == [{"id": n, "country": "C7"} for n in (7, 57, 107)]
    assert body["estimate"]["rows"] == ROWS // 50
    assert body["plan"]
    assert client.get("/v1/jobs").get_json()["items"] == []


def test_a_query_that_cannot_be_answered_whole_says_where(client: Client) -> None:
    for path, body in (("/v1/tables/people/records:explain", {}), ("/v1/queries", {"table": "people"})):
        paged = client.post(path, {**body, "vql": {"page": 2}})
        unknown = client.post(path, {**body, "vql": {"select_columns": ["nope"]}})

        assert (paged.status_code, paged.get_json()["errors"][0]["pointer"]) == (422, "/vql/page")
        assert (unknown.status_code, unknown.get_json()["code"]) == (422, "vql.unknown_column")


@pytest.mark.parametrize(
    ("search", "index"),
    [
        ({"text_value": "sales 41", "search_type": "shuffle"}, "people_title_word"),
        ({"text_value": "of sales", "search_type": "exact"}, "people_title_word"),
        ({"text_value": "oftwar", "search_type": "substring"}, "people_title_trgm"),
        ({"text_value": "enginer", "search_type": "shuffle", "fuzzy": True}, "people_title_trgm"),
    ],
)
def test_searches_of_text_use_the_index_that_is_declared_and_find_the_same(
    sessions: Sessions, people: Table, search: dict[str, Any], index: str
) -> None:
    query = parse({"where": {"text_matches": {"must": [{**search, "filter_key": "title"}]}}}, Catalogue(people))
    statement = select_rows(
        Selection("default", people, columns_of(people, query, with_key=False, with_metadata=False), query)
    )

    with sessions.begin() as session:
        slow = {row.id for row in session.execute(text(statement.sql), statement.parameters)}
        session.execute(text("SET LOCAL enable_seqscan = off"))
        planned = explain(session, statement, people.columns)
        quick = {row.id for row in session.execute(text(statement.sql), statement.parameters)}

    assert index in planned.indexes
    assert slow == quick != set()


# The role that reads


def test_rows_are_read_as_a_role_that_sees_the_tenants_tables_alone(sessions: Sessions, people: Table) -> None:
    with sessions.begin() as session:
        add_tenant(session, "acme")
    Tables(sessions).get("acme", "contacts")
    reading = Reading(sessions, timeout_s=30)

    def run(sql: str) -> Any:
        with reading.transaction("default") as session:
            return session.execute(text(sql)).scalar_one()

    assert run("SELECT current_user") == reading.role("default")
    assert run("SELECT count(*) FROM t_default.people") == ROWS
    Tables(sessions).get("default", "companies")
    assert run("SELECT count(*) FROM t_default.companies") == 0
    for forbidden in ("SELECT count(*) FROM t_acme.contacts", "SELECT count(*) FROM jobs"):
        with pytest.raises(DBAPIError, match="permission denied"):
            run(forbidden)
    with pytest.raises(DBAPIError, match=r"read-only transaction|permission denied"):
        run("DELETE FROM t_default.people RETURNING id")


def test_a_connection_that_may_make_no_roles_reads_in_read_only_transactions_and_says_so(
    settings: Settings, sessions: Sessions, people: Table, caplog: pytest.LogCaptureFixture
) -> None:
    drop_role(sessions, Reading(sessions, timeout_s=30).role("default"))
    with sessions.begin() as session:
        session.execute(text("CREATE ROLE plain LOGIN PASSWORD 'plain'"))
        session.execute(text("GRANT USAGE ON SCHEMA t_default TO plain"))
        session.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA t_default TO plain"))
    url = make_url(settings.database_url.get_secret_value()).set(username="plain", password="plain")
    engine = open_engine(url.render_as_string(hide_password=False), application_name="plain")
    reading = Reading(make_sessions(engine), timeout_s=30)

    with reading.transaction("default") as session:
        found = session.execute(text("SELECT current_user, count(*) FROM t_default.people")).one()

    engine.dispose()
    drop_role(sessions, "plain")
    assert tuple(found) == ("plain", ROWS)
    assert [record.getMessage() for record in caplog.records] == ["reader.not_made"]


def drop_role(sessions: Sessions, role: str | None) -> None:
    with sessions.begin() as session:
        session.execute(text(f'DROP OWNED BY "{role}"'))
        session.execute(text(f'DROP ROLE "{role}"'))


def test_a_role_that_was_dropped_is_made_again(sessions: Sessions, people: Table) -> None:
    reading = Reading(sessions, timeout_s=30)
    role = reading.role("default")
    drop_role(sessions, role)

    with pytest.raises(DBAPIError), reading.transaction("default"):
        pass
    with reading.transaction("default") as session:
        user = session.execute(text("SELECT current_user")).scalar_one()

    assert user == role


# Answered at once


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_answer_at_once_is_the_rows_in_the_format_asked_for(client: Client, compression: str) -> None:
    vql = {**GERMANS, "select_columns": ["id", "title", "pay"], "order_by": [{"order_by": "id"}], "limit": 3}

    answers = {name: ask(client, vql=vql, format=name, compression=compression) for name in ("ndjson", "csv", "json")}

    assert {answer.status_code for answer in answers.values()} == {200}
    body = {
        name: answer.data if compression == "none" else zlib.decompress(answer.data, 31)
        for name, answer in answers.items()
    }
    rows = [json.loads(line) for line in body["ndjson"].splitlines()]
    assert [row["id"] for row in rows] == [7, 57, 107]
    assert rows[0] == {"id": 7, "title": None, "pay": 7.1}
    assert json.loads(body["json"]) == rows
    table = list(csv.reader(io.StringIO(body["csv"].decode())))
    assert table[:2] == [["id", "title", "pay"], ["7", "", "7.10"]]
    assert table[2][1] == "Head of Sales 57"
    assert answers["csv"].headers["Haulier-Query-Mode"] == "stream"
    assert answers["csv"].headers["Haulier-Estimated-Rows"] == "3"
    expected = "application/gzip" if compression == "gzip" else "application/x-ndjson"
    assert answers["ndjson"].content_type == expected


def test_an_answer_without_rows_is_whole_too(client: Client) -> None:
    nobody = {"where": {"keyword_match": {"must": {"country": "none"}}}}

    answers = [ask(client, vql=nobody, format=name).data for name in ("ndjson", "csv", "json")]

    assert answers == [b"", b"id,title,country,pay,note\n", b"[]\n"]


def test_a_reader_that_goes_away_frees_connection_and_place(make: Make, sessions: Sessions, people: Table) -> None:
    fill_more(sessions)
    client = make(query_streams=1)
    queries = services_of(client).queries

    first = queries.ask("default", Asked("people", {}, Mode.STREAM), actor="test")
    assert isinstance(first, Streamed)
    block = next(first.blocks)
    assert ask(client, mode="stream", vql=GERMANS).status_code == 503
    first.close()

    assert block.startswith(b'{"id":')
    assert within(10, lambda: ask(client, mode="stream", vql=GERMANS).status_code == 200)
    assert within(10, lambda: _copies(sessions) == 0)


def test_a_slow_reader_holds_the_query_back_and_gets_all_of_it(make: Make, sessions: Sessions, people: Table) -> None:
    fill_more(sessions)
    queries = services_of(make()).queries

    answer = queries.ask("default", Asked("people", {}, Mode.STREAM), actor="test")
    assert isinstance(answer, Streamed)
    read = next(answer.blocks)
    held_back = _copies(sessions)
    rest = b"".join(answer.blocks)
    answer.close()

    assert held_back == 1
    assert (read + rest).count(b"\n") == _MANY + ROWS


_MANY = 6_000


def fill_more(sessions: Sessions) -> None:
    """More than what lies between Postgres and a reader: about 24 MB as ndjson."""
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.people (id, note) "
                f"SELECT n, repeat('x', 4000) FROM generate_series({ROWS + 1}, {ROWS + _MANY}) AS n"
            )
        )


def _copies(sessions: Sessions) -> int:
    with sessions.begin() as session:
        count: int = session.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests queries' "
                "AND state <> 'idle' AND query LIKE 'COPY%'"
            )
        ).scalar_one()
    return count


def test_an_answer_that_takes_too_long_is_an_error_before_its_first_byte(make: Make, people: Table) -> None:
    client = make(query_stream_timeout_s=0.05)
    search = {"text_value": "zzz", "filter_key": "title", "search_type": "shuffle", "fuzzy": True}
    slow = {"text_matches": {"must_not": [search | {"text_value": f"zz{n}"} for n in range(30)]}}

    answer = ask(client, mode="stream", vql={"where": slow, "order_by": [{"order_by": "title"}]})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "vql.timeout")


def test_an_answer_that_breaks_off_is_seen_not_to_be_whole(make: Make, sessions: Sessions, people: Table) -> None:
    fill_more(sessions)
    queries = services_of(make(query_stream_timeout_s=2.0)).queries
    formats: tuple[FileFormat, ...] = ("ndjson", "csv", "json")

    answers = [queries.ask("default", Asked("people", {}, Mode.STREAM, name), actor="test") for name in formats]
    assert within(10, lambda: _copies(sessions) == 0)
    bodies = [b"".join(answer.blocks).decode() for answer in answers if isinstance(answer, Streamed)]

    for body, name in zip(bodies, formats, strict=True):
        last = body.splitlines()[-1]
        assert last.removeprefix('"').startswith("!error vql.timeout: the answer took longer than 2 s")
        with pytest.raises((ValueError, csv.Error)):
            parsed(body, name)


def parsed(body: str, file_format: str) -> Any:
    if file_format == "csv":
        return list(csv.reader(io.StringIO(body, newline=""), strict=True))
    return json.loads(body) if file_format == "json" else [json.loads(line) for line in body.splitlines()]


# Made a job


@pytest.mark.feature("S0-01")
def test_a_query_of_more_rows_than_the_limit_becomes_a_job(make: Make, people: Table) -> None:
    client = make(query_job_rows=1000)

    few, many = ask(client, vql={"limit": 1000}), ask(client, vql={"limit": 1001})

    assert few.status_code == 200
    assert few.data.count(b"\n") == 1000
    assert many.status_code == 202
    body = many.get_json()
    assert (body["mode"], body["reason"], body["estimate"]["rows"]) == ("job", "query_rows", 1001)
    job = client.get(many.headers["Location"]).get_json()
    assert job["type"] == "export"
    assert job["query"] == {"mode": "auto", "reason": "query_rows", "estimate": body["estimate"]}


@pytest.mark.feature("S0-02")
def test_a_query_of_more_bytes_than_the_limit_becomes_a_job(make: Make, people: Table) -> None:
    small = estimate_of(make(), {"limit": 100})
    client = make(query_job_bytes=small["bytes"])

    at_limit, over = ask(client, vql={"limit": 100}), ask(client, vql={"limit": 101})

    assert at_limit.status_code == 200
    assert at_limit.headers["Haulier-Estimated-Bytes"] == str(small["bytes"])
    assert (over.status_code, over.get_json()["reason"]) == (202, "query_bytes")
    assert over.get_json()["estimate"]["bytes"] > small["bytes"]


@pytest.mark.feature("S0-05")
def test_a_costly_query_of_few_rows_becomes_a_job(make: Make, people: Table) -> None:
    costly = {"where": {"keyword_match": {"must": {"pay": 7.1}}}}
    cost = estimate_of(make(), costly)["cost"]
    client = make(query_job_cost=cost - 1)

    cheap, dear = ask(client, vql=GERMANS), ask(client, vql=costly)

    assert cheap.status_code == 200
    assert (dear.status_code, dear.get_json()["reason"]) == (202, "query_cost")
    assert dear.get_json()["estimate"]["rows"] <= 1


@pytest.mark.feature("S0-04")
def test_under_load_a_small_query_becomes_a_job(make: Make, people: Table) -> None:
    loaded = make(query_job_load=-1.0)

    answer = ask(loaded, vql=GERMANS)
    insisted = ask(loaded, vql=GERMANS, mode="stream")

    assert (answer.status_code, answer.get_json()["reason"]) == (202, "system_load")
    assert insisted.status_code == 200


@pytest.mark.feature("S0-04")
def test_when_every_place_for_streams_is_taken_a_query_becomes_a_job(client: Client) -> None:
    places = services_of(client).queries.places
    taken = 0
    while places.try_take():
        taken += 1

    answer, insisted = ask(client, vql=GERMANS), ask(client, vql=GERMANS, mode="stream")

    assert taken > 0
    assert (answer.status_code, answer.get_json()["reason"]) == (202, "system_load")
    assert (insisted.status_code, insisted.headers["Retry-After"]) == (503, "1")


@pytest.mark.feature("S0-03")
def test_a_caller_who_asks_for_a_job_gets_one_for_a_single_row(
    client: Client, sessions: Sessions, settings: Settings, objects: ObjectStore
) -> None:
    worker = Worker(sessions, settings, objects, types=(EXPORT,))
    worker.heart.start()
    one = {"limit": 1}

    by_header = ask(client, {"Prefer": "respond-async, wait=5"}, vql=one)
    by_mode = ask(client, mode="job", vql=one, labels={"for": "me"}, priority="high")

    assert (by_header.status_code, by_mode.status_code) == (202, 202)
    assert by_header.headers["Preference-Applied"] == "respond-async"
    assert "Preference-Applied" not in by_mode.headers
    assert by_header.get_json()["reason"] == by_mode.get_json()["reason"] == "asked"
    assert by_mode.get_json()["job"]["labels"] == {"for": "me"}
    attempt(worker)
    worker.heart.stop()
    job = client.get(by_mode.headers["Location"]).get_json()
    assert (job["state"], job["progress"]["rows_done"]) == (JobState.COMPLETED, 1)


def test_a_request_for_a_job_that_is_sent_again_answers_with_the_first_one(client: Client, sessions: Sessions) -> None:
    again = {"Idempotency-Key": "one"}

    first = ask(client, again, mode="job")
    with sessions.begin() as session:
        session.execute(text("DELETE FROM t_default.people WHERE id > 10"))
        session.execute(text("ANALYZE t_default.people"))
    second = ask(client, again, mode="job")

    assert first.get_json()["job"]["id"] == second.get_json()["job"]["id"]
    assert second.headers["Idempotent-Replayed"] == "true"


def test_another_tenants_table_is_not_there(client: Client, web_services: Services) -> None:
    with web_services.sessions.begin() as session:
        add_tenant(session, "other")
    key, _ = services_of(client).keys.create("other", Role.ADMIN, created_by="tests")
    stranger = Client(client.app, key)

    answers = [
        ask(stranger),
        stranger.post("/v1/tables/people/records:explain", {}),
        stranger.post("/v1/tables/people/records:preview", {}),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


def test_a_query_of_a_stopped_time_is_told_by_its_code(sessions: Sessions, people: Table) -> None:
    with (
        pytest.raises(InvalidRequestError) as error,
        Reading(sessions, timeout_s=0.05).transaction("default") as session,
    ):
        session.execute(text("SELECT pg_sleep(5)"))

    assert error.value.code == "vql.timeout"
