"""Repair of a ledger: rows are corrected and replayed, each is loaded once, and the books of both jobs stay true."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from app.dataplane import replay as dataplane
from app.domain.errors import FenceLost
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.replay_failed_rows import JOB_TYPE
from tests.factories import a_service
from tests.integration.conftest import Client
from tests.integration.imports import Importing

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("amount", ColumnType.NUMERIC)),
    ("id",),
)
TEN = "id,name,amount\n" + "".join(f"{number},n,{'x' if number % 2 else number}\n" for number in range(10))


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", THINGS)
    return Importing(settings, sessions, objects)


def imported(imports: Importing, body: str, **config: Any) -> UUID:
    """An import that a worker has done."""
    context = imports.context(imports.submit(body, table="things", batch_rows=4, **config))
    Runs(imports.sessions).complete(context.job, imports.run(context))
    return context.id


def submitted(imports: Importing, source: UUID, **config: Any) -> UUID:
    """A replay of what an import refused."""
    request = SubmitJob("default", JOB_TYPE.name, {"job": str(source), **config}, "tests")
    return a_service(imports.sessions).submit(request).job.id


def run(context: RunContext) -> Result:
    result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(context.job.config))
    assert result is not None
    return result


def replayed(imports: Importing, source: UUID, **config: Any) -> Result:
    return run(imports.context(submitted(imports, source, **config)))


def put_right(imports: Importing, source: UUID) -> None:
    """Correct every amount."""
    with imports.sessions.begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE failed_records SET corrected = replace(raw, ',x', ',7') WHERE job_id = %s", (str(source),)
        )


def table(imports: Importing) -> list[tuple[Any, ...]]:
    return imports.rows("SELECT id, name, amount::int FROM t_default.things ORDER BY id")


def unresolved(imports: Importing, source: UUID) -> list[Any]:
    rows = imports.rows(
        "SELECT line FROM failed_records WHERE job_id = :id AND resolved_at IS NULL ORDER BY line", id=source
    )
    return [line for (line,) in rows]


@pytest.mark.feature("S2-79")
def test_a_corrected_row_is_loaded_by_a_replay_and_the_others_keep_their_new_error(
    imports: Importing, member: Client
) -> None:
    source = imported(imports, TEN)
    by_values = member.call("PATCH", f"/v1/jobs/{source}/failed-records/3", json={"values": {"amount": "1"}})
    by_text = member.call("PATCH", f"/v1/jobs/{source}/failed-records/5", json={"raw": "y,n,3"})
    answer = member.post(f"/v1/jobs/{source}:replay", {})
    job_id = UUID(answer.get_json()["id"])

    result = run(imports.context(job_id))

    assert (by_values.status_code, by_values.get_json()["corrected"]) == (200, "1,n,1")
    assert (by_text.status_code, answer.status_code) == (200, 202)
    assert result.data["books"] == {
        "read": 5, "loaded": 1, "updated": 0, "unchanged": 0, "superseded": 0, "skipped": 0, "failed": 4
    }  # fmt: skip
    assert (result.data["resolved"], result.data["unresolved"]) == (1, 4)
    assert table(imports)[:2] == [(0, "n", 0), (1, "n", 1)]
    assert imports.ledger(source) == [
        (3, "value.numeric", "amount", "1,n,x"),
        (5, "value.bigint", "id", "3,n,x"),
        *((line, "value.numeric", "amount", f"{line - 2},n,x") for line in (7, 9, 11)),
    ]
    assert imports.ledger(job_id)[0] == (5, "value.bigint", "id", "y,n,3")
    assert imports.rows("SELECT error_count, rows_done, rows_total FROM jobs WHERE id = :id", id=job_id) == [(4, 5, 5)]


def test_a_replay_leaves_the_books_of_the_import_as_they_are(imports: Importing) -> None:
    source = imported(imports, TEN)
    before = imports.rows("SELECT result, counters, error_count FROM jobs WHERE id = :id", id=source)
    put_right(imports, source)

    result = replayed(imports, source)

    assert result.outcome == "success"
    assert imports.rows("SELECT result, counters, error_count FROM jobs WHERE id = :id", id=source) == before
    assert unresolved(imports, source) == []
    assert len(table(imports)) == 10


def test_only_rows_of_the_codes_asked_for_are_replayed(imports: Importing) -> None:
    source = imported(imports, TEN + "y,n,1\n")

    result = replayed(imports, source, codes=["value.bigint"])

    assert result.data["books"]["read"] == 1
    assert result.data["unresolved"] == 6


@pytest.mark.parametrize("killed_in", ["resolve", "add", "advance"])
def test_a_replay_that_is_killed_in_its_second_batch_loads_every_row_once(
    imports: Importing, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    source = imported(imports, TEN)
    put_right(imports, source)
    monkeypatch.setattr(dataplane, "_ROWS_A_BATCH", 2)
    job_id = submitted(imports, source)
    with monkeypatch.context() as dying:
        _die_at(dying, killed_in, call=3 if killed_in == "advance" else 2)
        with pytest.raises(ConnectionResetError):
            run(imports.context(job_id))
    between = unresolved(imports, source)

    result = run(imports.context(job_id))

    assert between == [7, 9, 11]
    assert result.data["books"]["loaded"] == result.data["books"]["read"] == 5
    assert unresolved(imports, source) == []
    assert len(table(imports)) == 10


def _die_at(monkeypatch: pytest.MonkeyPatch, name: str, *, call: int) -> None:
    owner = {"resolve": dataplane.failed_records, "add": dataplane.ledger, "advance": dataplane.jobs}[name]
    real, calls = getattr(owner, name), iter(range(1, call))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)


def test_a_worker_that_lost_its_replay_resolves_nothing(imports: Importing) -> None:
    source = imported(imports, TEN)
    put_right(imports, source)
    job_id = submitted(imports, source)
    presumed_dead = imports.context(job_id)
    imports.claim(job_id)

    with pytest.raises(FenceLost):
        run(presumed_dead)

    assert len(unresolved(imports, source)) == 5
    assert len(table(imports)) == 5


def test_of_two_replays_at_once_each_row_is_loaded_by_one(imports: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    source = imported(imports, "id,name,amount\n" + "".join(f"{number},n,x\n" for number in range(60)))
    put_right(imports, source)
    monkeypatch.setattr(dataplane, "_ROWS_A_BATCH", 3)
    contexts = [imports.context(submitted(imports, source)) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, contexts))

    assert sum(result.data["resolved"] for result in results) == 60
    assert sum(result.data["books"]["loaded"] for result in results) == len(table(imports)) == 60


def test_a_replay_of_what_is_resolved_is_refused(imports: Importing, member: Client) -> None:
    source = imported(imports, TEN)
    put_right(imports, source)
    replayed(imports, source)

    again = member.post(f"/v1/jobs/{source}:replay", {})
    late = member.call("PATCH", f"/v1/jobs/{source}/failed-records/3", json={"raw": "1,n,2"})

    assert (again.status_code, again.get_json()["code"]) == (409, "ledger.nothing_to_replay")
    assert (late.status_code, late.get_json()["code"]) == (409, "ledger.resolved")


def test_rows_without_a_text_wait_for_a_correction_when_the_file_is_gone(imports: Importing, member: Client) -> None:
    context = imports.context(imports.submit(TEN, table="things"), ledger_raw_rows=0)
    Runs(imports.sessions).complete(context.job, imports.run(context))
    imports.objects.delete([ObjectRef(imports.settings.s3_bucket, context.job.config["s3_key"])])
    path = f"/v1/jobs/{context.id}/failed-records/3"

    some = member.call("PATCH", path, json={"values": {"amount": "1"}})
    every = member.call("PATCH", path, json={"values": {"id": "1", "name": 'a "b", c', "amount": "1"}})
    result = replayed(imports, context.id)

    assert some.status_code == 422
    assert [fault["pointer"] for fault in some.get_json()["errors"]] == ["/values/id", "/values/name"]
    assert every.status_code == 200
    assert (result.data["resolved"], result.data["without_text"]) == (1, 4)
    assert table(imports)[1] == (1, 'a "b", c', 1)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/raw"),
        ({"raw": "1,2,3", "values": {"id": "1"}}, "/raw"),
        ({"raw": "1,n"}, "/raw"),
        ({"raw": "1,n,1\n2,n,2"}, "/raw"),
        ({"raw": '1,"n,1'}, "/raw"),
        ({"raw": "\n"}, "/raw"),
        ({"values": {"nobody": "1"}}, "/values/nobody"),
    ],
)
def test_a_correction_that_is_no_row_of_the_file_is_refused(
    imports: Importing, member: Client, body: dict[str, Any], pointer: str
) -> None:
    source = imported(imports, TEN)

    answer = member.call("PATCH", f"/v1/jobs/{source}/failed-records/3", json=body)

    assert answer.status_code == 422, answer.get_json()
    assert answer.get_json()["errors"][0]["pointer"] == pointer
    assert imports.rows("SELECT count(*) FROM failed_records WHERE corrected IS NOT NULL") == [(0,)]


def test_a_line_that_is_not_in_the_ledger_and_a_job_that_is_no_import_are_told_apart(
    imports: Importing, member: Client, stranger: Client
) -> None:
    source = imported(imports, TEN)
    echo = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]

    answers = [
        member.call("PATCH", f"/v1/jobs/{source}/failed-records/4", json={"raw": "1,n,1"}),
        member.post(f"/v1/jobs/{echo}:replay", {}),
        stranger.post(f"/v1/jobs/{source}:replay", {}),
    ]

    assert [answer.status_code for answer in answers] == [404, 409, 404]
    assert [answer.get_json()["code"] for answer in answers[:2]] == ["ledger.no_such_line", "ledger.not_replayable"]


def test_failed_rows_are_grouped_by_code_and_field_with_a_sample(imports: Importing, member: Client) -> None:
    source = imported(imports, TEN + "y,n,1\n")

    groups = member.get(f"/v1/jobs/{source}/failed-records/groups").get_json()["items"]

    assert [(one["code"], one["field"], one["count"], one["unresolved"], one["line"]) for one in groups] == [
        ("value.numeric", "amount", 5, 5, 3),
        ("value.bigint", "id", 1, 1, 12),
    ]
    assert groups[0]["raw"] == "1,n,x"
    assert "amount" in groups[0]["message"]


def test_a_client_that_accepts_csv_gets_it(imports: Importing, member: Client) -> None:
    source = imported(imports, TEN)

    answer = member.get(f"/v1/jobs/{source}/failed-records", headers={"Accept": "text/csv"})

    assert answer.mimetype == "text/csv"
    assert len(answer.get_data(as_text=True).splitlines()) == 6
