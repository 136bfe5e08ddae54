"""Rows are deleted by age and by query, in batches; a killed job goes on, and what another changed meanwhile stays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.dataplane import reverting
from app.domain.errors import FenceLost
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.delete_records_before import JOB_TYPE
from tests.factories import a_request, a_service
from tests.integration.imports import Importing
from tests.integration.test_revert import run as reverted
from tests.integration.test_revert import submitted as revert_of
from tests.integration.worker import within

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("at", ColumnType.TIMESTAMPTZ)),
    ("id",),
)
OLD = "2024-01-15T00:00:00Z"
EVEN = {"where": {"keyword_match": {"must": {"name": "even"}}}}
EVERYTHING = "SELECT to_jsonb(t)::text FROM t_default.things AS t ORDER BY id"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", THINGS)
    imports = Importing(settings, sessions, objects)
    rows = "".join(f"{n},{'odd' if n % 2 else 'even'},2024-01-{n:02}T00:00:00Z\n" for n in range(1, 31))
    imports.load("id,name,at\n" + rows, table="things")
    return imports


def submitted(imports: Importing, **config: Any) -> UUID:
    return (
        a_service(imports.sessions).submit(a_request(type=JOB_TYPE.name, config={"table": "things", **config})).job.id
    )


def run(context: RunContext) -> Result:
    result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(context.job.config))
    assert result is not None
    return result


def deleted(imports: Importing, **config: Any) -> Result:
    return run(imports.context(submitted(imports, **config)))


def dying_after(writes: int) -> Callable[..., Any]:
    """A guarded write by which a worker is killed when it has made some."""
    real, calls = jobs.advance, iter(range(writes))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return real(*arguments, **named)

    return dying


def left(imports: Importing) -> list[int]:
    return [number for (number,) in imports.rows("SELECT id FROM t_default.things ORDER BY id")]


@pytest.mark.feature("S1-07")
@pytest.mark.parametrize("batch_rows", [4, 100])
def test_rows_that_are_older_go_the_others_stay_and_the_message_counts(imports: Importing, batch_rows: int) -> None:
    result = deleted(imports, before=OLD, column="at", batch_rows=batch_rows)

    assert left(imports) == list(range(15, 31))
    assert result.message == "deleted 14 records of things"
    assert imports.rows("SELECT rows_done FROM jobs WHERE type = 'delete_records_before'") == [(14,)]


def test_a_query_says_which_and_both_together_narrow(imports: Importing) -> None:
    odd = {"where": {"keyword_match": {"must": {"name": "odd"}}}}

    both = deleted(imports, before=OLD, column="at", vql=odd)
    alone = deleted(imports, vql=odd)

    assert (both.data["deleted"], alone.data["deleted"]) == (7, 8)
    assert left(imports) == list(range(2, 31, 2))


@pytest.mark.parametrize(("before", "count"), [("2001-01-01T00:00:00Z", 0), ("2100-01-01T00:00:00Z", 30)])
def test_without_a_column_the_time_is_that_of_the_rows_themselves(imports: Importing, before: str, count: int) -> None:
    result = deleted(imports, before=before)

    assert (result.data["deleted"], result.outcome) == (count, "success" if count else "empty")


def test_a_job_that_is_killed_goes_on_and_counts_each_row_once(
    imports: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(imports, before=OLD, column="at", batch_rows=4)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "advance", dying_after(2))
        with pytest.raises(ConnectionResetError):
            run(imports.context(job_id))
    between = left(imports)

    result = run(imports.context(job_id))

    assert between == list(range(9, 31))
    assert result.data["deleted"] == 14
    assert left(imports) == list(range(15, 31))


def test_a_worker_that_lost_the_job_deletes_nothing(imports: Importing) -> None:
    job_id = submitted(imports, before=OLD, column="at")
    presumed_dead = imports.context(job_id)
    imports.claim(job_id)

    with pytest.raises(FenceLost):
        run(presumed_dead)

    assert len(left(imports)) == 30


def test_a_row_that_is_no_longer_meant_when_its_turn_comes_stays(imports: Importing) -> None:
    context = imports.context(submitted(imports, before=OLD, column="at"))
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%DELETE FROM %things%'"
    with ThreadPoolExecutor(1) as pool:
        with imports.sessions.begin() as other:
            other.execute(text("UPDATE t_default.things SET at = '2025-01-01' WHERE id = 5"))
            work = pool.submit(run, context)
            assert within(10, lambda: imports.rows(waiting))
        result = work.result()

    assert result.data["deleted"] == 13
    assert left(imports) == [5, *range(15, 31)]


def undone(imports: Importing, source: UUID) -> Result:
    """What a revert of a job says that has been over."""
    imports.rows("UPDATE jobs SET state = 'completed' WHERE id = :id RETURNING id", id=source)
    return reverted(imports.context(revert_of(imports, source)))


def kept(imports: Importing) -> list[int]:
    return [
        int(key) for (key,) in imports.rows("SELECT key[1] FROM before_images WHERE is_deleted ORDER BY key[1]::bigint")
    ]


def test_what_was_deleted_is_put_back_to_the_last_bit(imports: Importing) -> None:
    before = imports.rows(EVERYTHING)
    plain, job_id = (submitted(imports, vql=EVEN, revertible=kind, batch_rows=4) for kind in (False, True))

    result = run(imports.context(job_id))
    books = undone(imports, job_id).data["books"]
    run(imports.context(plain))

    assert result.data["deleted"] == 15
    assert books == {"read": 15, "restored": 15, "deleted": 0, "gone": 0, "failed": 0}
    assert imports.rows(EVERYTHING) == before[::2]
    assert kept(imports) == []


def test_a_row_whose_key_was_written_since_is_not_put_back_and_waits_for_another_revert(imports: Importing) -> None:
    before = imports.rows(EVERYTHING)
    job_id = submitted(imports, before=OLD, column="at", revertible=True)
    run(imports.context(job_id))
    later = imports.context(imports.submit("id,name\n3,new\n", table="things", revertible=True))
    imports.run(later)
    imports.rows("INSERT INTO t_default.things (id, name) VALUES (4, 'by hand') RETURNING id")

    early = undone(imports, job_id)
    messages = [message for (message,) in imports.rows("SELECT message FROM failed_records ORDER BY line")]
    waiting = kept(imports)
    imports.rows("DELETE FROM t_default.things WHERE id = 4 RETURNING id")
    undone(imports, later.id)
    again = undone(imports, job_id)

    assert (early.outcome, early.data["books"]) == (
        "partial",
        {"read": 14, "restored": 12, "deleted": 0, "gone": 0, "failed": 2},
    )
    assert messages == [
        f"row id 3 was written again since by job {later.id}",
        "row id 4 was written again since by a request",
    ]
    assert (waiting, again.data["books"]["restored"]) == ([3, 4], 2)
    assert imports.rows(EVERYTHING) == before


def test_a_killed_delete_and_a_killed_revert_of_it_go_on(imports: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverting, "_ROWS_A_BATCH", 4)
    before = imports.rows(EVERYTHING)
    job_id = submitted(imports, before=OLD, column="at", batch_rows=4, revertible=True)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "advance", dying_after(2))
        with pytest.raises(ConnectionResetError):
            run(imports.context(job_id))
    imports.rows("INSERT INTO t_default.things (id, name) VALUES (1, 'new') RETURNING id")
    result = run(imports.context(job_id))
    imports.rows("UPDATE jobs SET state = 'completed' WHERE id = :id RETURNING id", id=job_id)
    imports.rows("DELETE FROM t_default.things WHERE id = 1 RETURNING id")
    undo = revert_of(imports, job_id)
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "advance", dying_after(2))
        with pytest.raises(ConnectionResetError):
            reverted(imports.context(undo))
    between = len(left(imports))
    books = reverted(imports.context(undo)).data["books"]

    assert (result.data["deleted"], between) == (14, 20)
    assert books == {"read": 14, "restored": 14, "deleted": 0, "gone": 0, "failed": 0}
    assert imports.rows(EVERYTHING) == before


def test_a_key_that_is_written_while_it_is_put_back_is_refused(imports: Importing) -> None:
    job_id = submitted(imports, before=OLD, column="at", revertible=True)
    run(imports.context(job_id))
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%is_deleted%'"
    with ThreadPoolExecutor(1) as pool:
        with imports.sessions.begin() as other:
            other.execute(text("INSERT INTO t_default.things (id, name) VALUES (5, 'theirs')"))
            work = pool.submit(undone, imports, job_id)
            assert within(10, lambda: imports.rows(waiting))
        books = work.result().data["books"]

    assert (books["restored"], books["failed"]) == (13, 1)
    assert imports.rows("SELECT name FROM t_default.things WHERE id = 5") == [("theirs",)]
    assert imports.rows("SELECT message FROM failed_records") == [("row id 5 was written again since",)]


def test_a_deleted_row_comes_back_without_what_was_declared_since(imports: Importing) -> None:
    job_id = submitted(imports, before=OLD, column="at", revertible=True)
    run(imports.context(job_id))
    later = (*THINGS.columns, Column("late", ColumnType.TEXT), Column("more", ColumnType.JSON))
    Tables(imports.sessions).declare("default", Table("things", later, THINGS.key, version=2))

    undone(imports, job_id)

    assert imports.rows("SELECT DISTINCT late, more FROM t_default.things WHERE id < 15") == [(None, None)]
