"""Rows are deleted by age and by query, in batches; a killed job goes on, and what another changed meanwhile stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.dataplane import deleting
from app.domain.errors import FenceLost
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.delete_records_before import JOB_TYPE
from tests.factories import a_request, a_service
from tests.integration.imports import Importing
from tests.integration.worker import within

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("at", ColumnType.TIMESTAMPTZ)),
    ("id",),
)
OLD = "2024-01-15T00:00:00Z"


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
    real, calls = deleting.jobs.advance, iter(range(2))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(deleting.jobs, "advance", dying)
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
