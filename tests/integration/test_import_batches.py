"""Batches of imports: their size, how many at once, what becomes of one that takes too long, and which size suits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.dataplane import postgres_errors
from app.domain.errors import TransientError
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence import partitions
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tests.factories import a_service
from tests.integration.conftest import Client
from tests.integration.imports import Importing
from tests.integration.worker import within

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT)),
    ("id",),
    indexes=(Index(("name",)),),
)


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", THINGS)
    return Importing(settings, sessions, objects)


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_errors, "_FIRST_WAIT_S", 0.001)


def a_file(rows: int, name: str = "n") -> str:
    return "id,name\n" + "".join(f"{number},{name}\n" for number in range(rows))


def submitted(imports: Importing, body: str, **config: Any) -> UUID:
    """A job for a file, made as a request makes it."""
    given = {"s3_key": imports.put(body), "table": "things", **config}
    service = a_service(imports.sessions, settings=imports.settings)
    return service.submit(SubmitJob("default", "insert_csv_file", given, "tests")).job.id


def completed(imports: Importing, body: str, **config: Any) -> UUID:
    """An import that a worker has done."""
    context = imports.context(submitted(imports, body, **config))
    Runs(imports.sessions).complete(context.job, imports.run(context))
    return context.id


def while_locked(
    imports: Importing, statement: str, work: Callable[[], Result], until: Callable[[Future[Result]], object]
) -> Future[Result]:
    """``work``, begun while another transaction holds what ``statement`` locks, which it lets go at ``until``."""
    with ThreadPoolExecutor(1) as pool, imports.sessions() as holder:
        holder.execute(text(statement))
        running = pool.submit(work)
        assert within(20, lambda: until(running))
        holder.rollback()
    return running


def transactions_that_waited(imports: Importing) -> Callable[[], int]:
    """Counts, from one look to the next, the transactions that were seen waiting for a lock."""
    seen: set[Any] = set()

    def count() -> int:
        waiting = imports.rows("SELECT xact_start FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        seen.update(waiting)
        return len(seen)

    return count


ONE_ROW = "SELECT id FROM t_default.things WHERE id = 7 FOR UPDATE"
THE_TABLE = "LOCK TABLE t_default.things IN ACCESS EXCLUSIVE MODE"


@pytest.mark.feature("S2-90")
@pytest.mark.parametrize("lock", [ONE_ROW, THE_TABLE])
def test_a_stuck_batch_is_taken_back_in_time_and_tried_again_alone(imports: Importing, lock: str) -> None:
    imports.load(a_file(40, "old"), table="things")
    job_id = imports.submit(a_file(40), table="things", batch_size=10, parallel_batches=2, batch_timeout_s=0.4)
    context, waited = imports.context(job_id), transactions_that_waited(imports)
    tries = 2 if lock == ONE_ROW else 3

    done = while_locked(imports, lock, lambda: imports.run(context), lambda _: waited() >= tries)

    books = done.result().data["books"]
    assert (books["read"], books["updated"], books["failed"]) == (40, 40, 0)
    assert imports.rows("SELECT DISTINCT name FROM t_default.things") == [("n",)]
    assert imports.rows("SELECT rows_done FROM jobs WHERE id = :id", id=job_id) == [(40,)]


@pytest.mark.feature("S2-90")
def test_a_batch_that_stays_stuck_fails_the_attempt_and_the_next_goes_on_behind_what_is_in(
    imports: Importing, without_pauses: None
) -> None:
    imports.load(a_file(40, "old"), table="things")
    job_id = imports.submit(a_file(40), table="things", batch_size=5, parallel_batches=1, batch_timeout_s=0.2)
    context = imports.context(job_id)

    stuck = while_locked(imports, ONE_ROW, lambda: imports.run(context), lambda running: running.done())
    in_before = imports.rows("SELECT batch, counts ->> 'read' FROM import_batches WHERE job_id = :id", id=job_id)
    result = imports.run(imports.context(job_id))

    with pytest.raises(TransientError, match=r"batch 1 took longer than its 0\.2 s, 6 times") as raised:
        stuck.result()
    assert raised.value.code == "import.batch_timeout"
    assert in_before == [(0, "5")]
    assert result.data["books"]["updated"] == result.data["books"]["read"] == 40


def test_a_batch_of_many_short_statements_is_held_to_its_time_too(imports: Importing, without_pauses: None) -> None:
    too_wide = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12_000))
    job_id = imports.submit(a_file(300, too_wide), table="things", parallel_batches=1, batch_timeout_s=0.1)

    with pytest.raises(TransientError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "import.batch_timeout"
    assert imports.rows("SELECT count(*) FROM failed_records") == [(0,)]
    assert imports.rows("SELECT rows_done, error_count FROM jobs WHERE id = :id", id=job_id) == [(0, 0)]


@pytest.mark.feature("S2-88")
def test_a_file_is_cut_into_batches_of_the_size_asked_for(imports: Importing, member: Client) -> None:
    job_id = completed(imports, a_file(2500), batch_size=1000)

    page = member.get(f"/v1/jobs/{job_id}/batches").get_json()

    assert (page["batches"], page["batch_size"], page["next_after"]) == (3, 1000, None)
    assert [(one["batch"], one["rows"], one["lanes"]) for one in page["items"]] == [
        (0, 1000, 2),
        (1, 1000, 2),
        (2, 500, 2),
    ]
    assert [(one["first_line"], one["last_line"]) for one in page["items"]] == [(2, 1001), (1002, 2001), (2002, 2501)]
    assert all(one["seconds"] > 0 and one["rows_per_s"] > 0 for one in page["items"])


@pytest.mark.feature("S2-89")
def test_four_batches_at_once_write_what_one_after_the_other_writes(imports: Importing, member: Client) -> None:
    body = "id,name\n" + "".join(f"{number % 300},n{number}\n" for number in range(2000))
    states = []

    for at_once in (1, 4):
        job_id = completed(imports, body, batch_size=100, parallel_batches=at_once)
        states.append(imports.rows("SELECT id, name FROM t_default.things ORDER BY id"))
        imports.rows("DELETE FROM t_default.things RETURNING id")

    page = member.get(f"/v1/jobs/{job_id}/batches?limit=1000").get_json()
    assert states[0] == states[1]
    assert (page["parallel_batches"], {one["lanes"] for one in page["items"]}) == (4, {4})


def test_batches_come_page_by_page(imports: Importing, member: Client) -> None:
    job_id = completed(imports, a_file(50), batch_size=10)

    pages, path = [], f"/v1/jobs/{job_id}/batches?limit=2"
    while path:
        answer = member.get(path)
        pages.append([one["batch"] for one in answer.get_json()["items"]])
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""

    assert pages == [[0, 1], [2, 3], [4]]


def test_a_job_that_is_no_import_has_no_batches(member: Client) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]

    page = member.get(f"/v1/jobs/{job_id}/batches").get_json()

    assert page == {"items": [], "next_after": None, "batch_size": None, "parallel_batches": None, "batches": 0}


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"batch_size": 0}, "/config/batch_size"),
        ({"batch_rows": "5"}, "/config/batch_rows"),
        ({"parallel_batches": 9}, "/config/parallel_batches"),
        ({"batch_timeout_s": 0}, "/config/batch_timeout_s"),
        ({"batch_timeout_s": "30s"}, "/config/batch_timeout_s"),
        ({"batch_size": 5, "batch_rows": 5}, "/config/batch_rows"),
        ({"parallel_batches": 2, "lanes": 2}, "/config/lanes"),
    ],
)
def test_bounds_that_do_not_fit_are_pointed_at(member: Client, config: dict[str, Any], pointer: str) -> None:
    answer = member.post("/v1/jobs", {"type": "insert_csv_file", "config": {"s3_key": "a.csv", **config}})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "job.config_invalid")
    assert [error["pointer"] for error in answer.get_json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "type_and_file",
    [("insert_csv_file", {"s3_key": "a.csv"}), ("import", {"source": {"text": "id\n"}})],
    ids=["insert_csv_file", "import"],
)
def test_both_types_take_the_same_bounds(member: Client, type_and_file: tuple[str, dict[str, Any]]) -> None:
    name, file = type_and_file
    bounds = {"batch_size": 5, "parallel_batches": 2, "batch_timeout_s": 30, "on_budget": "fail"}

    made = member.post("/v1/jobs", {"type": name, "config": {**file, **bounds}})

    assert (made.status_code, made.get_json()["config"] | bounds) == (202, made.get_json()["config"])


def timed(imports: Importing, job_ids: Sequence[UUID], seconds: float) -> None:
    """Have the imports taken so long."""
    imports.rows(
        "UPDATE import_lanes SET seconds = :s WHERE job_id = ANY(:ids) RETURNING 1", s=seconds, ids=list(job_ids)
    )


@pytest.mark.feature("S2-99")
def test_the_report_compares_batch_sizes_and_suggests_the_fastest(imports: Importing, member: Client) -> None:
    small = [completed(imports, a_file(20), batch_size=5) for _ in range(3)]
    large = [completed(imports, a_file(20), batch_size=20) for _ in range(3)]
    timed(imports, small, 2.0)
    timed(imports, large, 1.0)
    timed(imports, large[:1], 50.0)

    report = member.get("/v1/tables/things/batch-report").get_json()

    assert (report["table"], report["days"], report["suggested_batch_size"]) == ("things", 30, 20)
    assert report["items"] == [
        {"batch_size": 5, "jobs": 3, "rows": 60, "failed": 0, "seconds": 6.0, "rows_per_s": 10.0},
        {"batch_size": 20, "jobs": 3, "rows": 60, "failed": 0, "seconds": 52.0, "rows_per_s": 20.0},
    ]
    assert "20 rows/s (median), against 10 with 5" in report["reason"]


def test_the_report_leaves_out_what_says_nothing_of_a_size(
    imports: Importing, member: Client, stranger: Client
) -> None:
    completed(imports, a_file(20), batch_size=21)
    completed(
        replace(imports, settings=imports.settings.model_copy(update={"max_batch_bytes": 30})),
        a_file(20),
        batch_size=19,
    )
    old = completed(imports, a_file(20), batch_size=20)
    submitted(imports, a_file(20), batch_size=20)
    long_ago = partitions.first_id(datetime.now(UTC) - timedelta(days=8))
    imports.rows("UPDATE jobs SET id = :new WHERE id = :id RETURNING 1", new=long_ago, id=old)
    imports.rows("UPDATE import_lanes SET job_id = :new WHERE job_id = :id RETURNING 1", new=long_ago, id=old)

    week, month = (member.get(f"/v1/tables/things/batch-report?days={days}").get_json() for days in (7, 30))

    assert (week["items"], week["suggested_batch_size"]) == ([], None)
    assert [one["batch_size"] for one in month["items"]] == [20]
    assert "3 completed imports each" in week["reason"]
    assert stranger.get("/v1/tables/things/batch-report").status_code == 404
    assert member.get("/v1/tables/things/batch-report?days=0").get_json()["errors"][0]["pointer"] == "?days"
