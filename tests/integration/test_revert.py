"""Undo: what a revertible job wrote is taken back, but for rows that others changed since; killed reverts go on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.dataplane import images, reverting
from app.dataplane.images import Keeping
from app.domain.errors import FenceLost
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.revert_job import JOB_TYPE
from tests.factories import a_request, a_service
from tests.integration.conftest import Client
from tests.integration.imports import Importing
from tests.integration.test_replay import replayed
from tests.integration.worker import within

THINGS = Table(
    "things",
    (
        Column("region", ColumnType.TEXT),
        Column("id", ColumnType.NUMERIC),
        Column("name", ColumnType.TEXT),
        Column("amount", ColumnType.DOUBLE),
        Column("at", ColumnType.TIMESTAMPTZ),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("more", ColumnType.JSON),
    ),
    ("region", "id"),
)
EVERYTHING = "SELECT to_jsonb(t)::text, more::text FROM t_default.things AS t ORDER BY region, id"
FIRST = "region,id,name,amount,at,tags,more\n" + "".join(
    f'eu,{number}.0,"a ""b"", c\\\n{number}",0.1{number},2024-02-29T12:00:00.123456Z,"{{x,NULL}}",{more}\n'
    for number, more in enumerate(["null", "", '"{""a"": 1.50}"', '"""text"""', "null", "[]"])
)
SECOND = "region,id,name,more\n" + "".join(f"eu,{number},new,[{number}]\n" for number in range(3, 9))


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", THINGS)
    return Importing(settings, sessions, objects)


@pytest.fixture(params=list(Keeping)[1:], ids=["returning-old", "locked-before"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way of PostgreSQL 18, where it is, and that of all others."""
    if request.param is Keeping.LOCKED:
        monkeypatch.setattr(images, "keeping", lambda _: Keeping.LOCKED)


def imported(imports: Importing, body: str, *, revertible: bool = True, **config: Any) -> UUID:
    """An import that a worker has done."""
    config = {"table": "things", "batch_rows": 4, "revertible": revertible, **config}
    context = imports.context(imports.submit(body, **config))
    Runs(imports.sessions).complete(context.job, imports.run(context))
    return context.id


def submitted(imports: Importing, source: UUID) -> UUID:
    return a_service(imports.sessions).submit(a_request(type=JOB_TYPE.name, config={"job": str(source)})).job.id


def run(context: RunContext) -> Result:
    result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(context.job.config))
    assert result is not None
    return result


def reverted(imports: Importing, source: UUID) -> dict[str, int]:
    """The books of a revert that a worker has done, without what is nothing."""
    context = imports.context(submitted(imports, source))
    result = run(context)
    Runs(imports.sessions).complete(context.job, result)
    return {fate: count for fate, count in result.data["books"].items() if count}


def kept(imports: Importing) -> list[tuple[Any, ...]]:
    return imports.rows("SELECT table_name, key, image IS NULL FROM before_images ORDER BY table_name, key")


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(
    ("mode", "books"),
    [
        ("upsert", {"read": 6, "restored": 3, "deleted": 3}),
        ("insert", {"read": 3, "deleted": 3}),
        ("update", {"read": 3, "restored": 3}),
    ],
)
def test_a_table_is_as_it_was_before_the_import_to_the_last_bit(
    imports: Importing, mode: str, books: dict[str, int]
) -> None:
    imported(imports, FIRST, revertible=False)
    before = imports.rows(EVERYTHING)
    job_id = imported(imports, SECOND, mode=mode)
    between = imports.rows(EVERYTHING)

    done = reverted(imports, job_id)

    assert (done, between != before) == (books, True)
    assert imports.rows(EVERYTHING) == before
    assert kept(imports) == []


@pytest.mark.usefixtures("each_way")
def test_of_several_writes_of_a_row_the_first_image_stays(imports: Importing) -> None:
    imported(imports, "region,id,name\neu,1,old\n", revertible=False)
    before = imports.rows(EVERYTHING)
    again = "".join(f"eu,{key},{name}\n" for name in "abc" for key in (1, 2, 3, 4))

    job_id = imported(imports, "region,id,name\n" + again)

    assert kept(imports) == [("things", ["eu", "1"], False), *(("things", ["eu", n], True) for n in "234")]
    assert reverted(imports, job_id) == {"read": 4, "restored": 1, "deleted": 3}
    assert imports.rows(EVERYTHING) == before


def test_a_row_that_the_import_found_as_it_was_is_no_business_of_the_revert(imports: Importing) -> None:
    imported(imports, FIRST, revertible=False)

    job_id = imported(imports, FIRST + "eu,9,x,,,,\n")

    assert kept(imports) == [("things", ["eu", "9"], True)]
    assert reverted(imports, job_id) == {"read": 1, "deleted": 1}


def test_without_the_option_nothing_is_kept(imports: Importing) -> None:
    imported(imports, FIRST, revertible=False)

    assert kept(imports) == []


def test_a_row_that_another_changed_since_is_left_counted_and_listed(imports: Importing, member: Client) -> None:
    imported(imports, FIRST, revertible=False)
    job_id = imported(imports, SECOND)
    other = imported(imports, "region,id,name\neu,3,other\n", revertible=False)
    member.post("/v1/tables/things/records:upsert", {"rows": [{"region": "eu", "id": "8", "name": "by hand"}]})
    imports.rows("DELETE FROM t_default.things WHERE id IN (4, 7) RETURNING id")
    answer = member.post(f"/v1/jobs/{job_id}:revert")
    context = imports.context(UUID(answer.get_json()["id"]))

    result = run(context)

    assert answer.status_code == 202
    assert result.outcome == "partial"
    assert result.data["books"] == {"read": 6, "restored": 1, "deleted": 1, "gone": 1, "failed": 3}
    assert [(code, raw) for _, code, _, raw in imports.ledger(context.id)] == [
        ("revert.moved_on", f'{{"table": "things", "key": {{"region": "eu", "id": "{key}"}}}}')
        for key in ("3.0", "4.0", "8")
    ]
    messages = [message for (message,) in imports.rows("SELECT message FROM failed_records ORDER BY line")]
    assert [message.rpartition(" since")[2].strip() for message in messages] == [f"by job {other}", "", "by a request"]
    assert [name for (name,) in imports.rows("SELECT name FROM t_default.things WHERE id IN (3, 8) ORDER BY id")] == [
        "other",
        "by hand",
    ]


def test_jobs_are_undone_from_the_last_to_the_first(imports: Importing) -> None:
    states, jobs = [], []
    for name in "abc":
        states.append(imports.rows(EVERYTHING))
        jobs.append(imported(imports, f"region,id,name\neu,1,{name}\neu,2,{name}\n"))

    early = reverted(imports, jobs[0])
    undone = [(reverted(imports, job_id), imports.rows(EVERYTHING)) for job_id in reversed(jobs)]

    assert early == {"read": 2, "failed": 2}
    assert [state for _, state in undone] == states[::-1]


def test_companions_are_taken_back_too(imports: Importing) -> None:
    body = "first_name,linkedin_url,company_name,company_city\nAda,in/ada,Acme,Paris\nBob,in/bob,Acme,Rome\n"

    job_id = imported(imports, body, table="contacts", companions=True)

    assert reverted(imports, job_id) == {"read": 3, "deleted": 3}
    assert imports.rows("SELECT FROM t_default.companies") == imports.rows("SELECT FROM t_default.contacts") == []


def test_a_replay_of_a_revertible_import_can_be_reverted_by_itself(imports: Importing) -> None:
    source = imported(imports, "region,id,amount\neu,1,1\neu,2,x\n")
    imports.rows("UPDATE failed_records SET corrected = 'eu,2,2' RETURNING line")
    replayed(imports, source)
    (replay,) = imports.rows("SELECT id FROM jobs WHERE type = 'replay_failed_rows'")
    imports.rows("UPDATE jobs SET state = 'completed' WHERE id = :id RETURNING id", id=replay[0])

    books = reverted(imports, replay[0])

    assert books == {"read": 1, "deleted": 1}
    assert imports.rows("SELECT id::int FROM t_default.things") == [(1,)]


def test_a_column_that_was_declared_since_keeps_its_value(imports: Importing) -> None:
    imported(imports, "region,id,name\neu,1,old\n", revertible=False)
    job_id = imported(imports, "region,id,name\neu,1,new\n")
    later = Table("things", (*THINGS.columns, Column("late", ColumnType.TEXT)), THINGS.key, version=2)
    Tables(imports.sessions).declare("default", later)
    imports.rows("UPDATE t_default.things SET late = 'kept' RETURNING id")

    reverted(imports, job_id)

    assert imports.rows("SELECT name, late FROM t_default.things") == [("old", "kept")]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverting, "_ROWS_A_BATCH", 2)


@pytest.mark.usefixtures("small_batches")
def test_a_revert_that_is_killed_goes_on_behind_its_last_batch(
    imports: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(imports, FIRST, revertible=False)
    before = imports.rows(EVERYTHING)
    job_id = submitted(imports, imported(imports, SECOND))
    real, calls = reverting.jobs.advance, iter(range(2))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(reverting.jobs, "advance", dying)
        with pytest.raises(ConnectionResetError):
            run(imports.context(job_id))
    left = len(kept(imports))

    result = run(imports.context(job_id))

    assert left == 4
    assert result.data["books"] == {"read": 6, "restored": 3, "deleted": 3, "gone": 0, "failed": 0}
    assert imports.rows(EVERYTHING) == before
    assert imports.rows("SELECT rows_done, rows_total FROM jobs WHERE id = :id", id=job_id) == [(6, 6)]


@pytest.mark.usefixtures("small_batches")
def test_of_two_reverts_at_once_each_row_is_given_back_by_one(imports: Importing) -> None:
    source = imported(imports, "region,id,name\n" + "".join(f"eu,{n},x\n" for n in range(40)))
    contexts = [imports.context(submitted(imports, source)) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, contexts))

    assert sum(result.data["books"]["deleted"] for result in results) == 40
    assert imports.rows(EVERYTHING) == []


def test_a_worker_that_lost_its_revert_gives_nothing_back(imports: Importing) -> None:
    job_id = submitted(imports, imported(imports, FIRST))
    presumed_dead = imports.context(job_id)
    imports.claim(job_id)

    with pytest.raises(FenceLost):
        run(presumed_dead)

    assert len(imports.rows(EVERYTHING)) == len(kept(imports)) == 6


def test_a_row_that_comes_between_the_lock_and_the_merge_is_kept_all_the_same(
    imports: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "keeping", lambda _: Keeping.LOCKED)
    context = imports.context(imports.submit("region,id,name\neu,1,new\n", table="things", lanes=1, revertible=True))
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO %things%'"
    with ThreadPoolExecutor(1) as pool:
        with imports.sessions.begin() as other:
            other.execute(text("INSERT INTO t_default.things (region, id, name) VALUES ('eu', 1, 'theirs')"))
            work = pool.submit(imports.run, context)
            assert within(10, lambda: imports.rows(waiting))
        result = work.result()

    assert result.data["books"]["updated"] == 1
    assert imports.rows("SELECT image ->> 'name' FROM before_images") == [("theirs",)]


def test_what_cannot_be_reverted_is_refused(imports: Importing, member: Client, stranger: Client) -> None:
    running = imports.context(imports.submit(FIRST, table="things", revertible=True)).id
    plain, other = (imported(imports, FIRST, revertible=kind) for kind in (False, True))
    asked = [(member, running), (member, plain), (stranger, other)]

    answers = [client.post(f"/v1/jobs/{job_id}:revert") for client, job_id in asked]

    assert [(answer.status_code, answer.get_json()["code"]) for answer in answers] == [
        (409, "job.wrong_state"),
        (409, "revert.nothing_kept"),
        (404, "job.not_found"),
    ]
