"""The error budget: it counts the whole job, stops it as the config says, and is granted anew by a person alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.domain.errors import JobError, JobPaused
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.slot import end_stopped
from tests.factories import a_control
from tests.integration.imports import Importing

THINGS = Table("things", (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT)), ("id",))


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", THINGS)
    return Importing(settings, sessions, objects)


def submitted(imports: Importing, pattern: str, **config: Any) -> UUID:
    """A job in batches of two for a file with a good row for each dot of ``pattern`` and a bad one for each x."""
    rows = "".join(f"{'x' if mark == 'x' else number},n\n" for number, mark in enumerate(pattern))
    return imports.submit("id,name\n" + rows, table="things", batch_rows=2, lanes=1, **config)


def in_the_first(imports: Importing, context: RunContext, parts: int) -> None:
    """Run a job whose worker is lost after so many parts."""
    left = iter(range(1 + parts))
    context.heed = lambda _: None if next(left, None) is not None else _lost()  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        imports.run(context)


def _lost() -> None:
    raise ConnectionResetError("the worker is gone")


def stopped(imports: Importing, context: RunContext) -> JobPaused:
    """Run a job that its budget pauses, as a worker does."""
    with pytest.raises(JobPaused) as raised:
        imports.run(context)
    context.stop(raised.value)
    end_stopped(Runs(imports.sessions), context)
    return raised.value


def resumed(imports: Importing, job_id: UUID) -> None:
    """Let a paused job go on."""
    a_control(imports.sessions).resume("default", job_id, actor="tests")


def test_rows_that_an_earlier_run_refused_count_against_the_budget(imports: Importing) -> None:
    job_id = submitted(imports, "xx..xx..", max_errors=3)
    in_the_first(imports, imports.context(job_id), parts=1)
    before = imports.ledger(job_id)

    paused = stopped(imports, imports.context(job_id))

    assert 1 <= len(before) < 4
    assert "4 records were refused, 3 are allowed (max_errors)" in paused.reason
    assert len(imports.ledger(job_id)) == 4


def test_the_pause_tells_its_reason_on_the_job(imports: Importing) -> None:
    job_id = submitted(imports, "xxxx", max_errors=1)

    stopped(imports, imports.context(job_id))

    [(paused, error)] = imports.rows("SELECT paused, error FROM jobs WHERE id = :id", id=job_id)
    assert paused
    assert error["code"] == "import.error_budget"
    assert "2 records were refused, 1 are allowed" in error["message"]


def test_who_resumes_grants_the_budget_anew_and_it_is_spent_again(imports: Importing) -> None:
    job_id = submitted(imports, "xx..x.x.x.", max_errors=1)
    stopped(imports, imports.context(job_id))

    resumed(imports, job_id)
    again = stopped(imports, imports.context(job_id))
    resumed(imports, job_id)
    result = imports.run(imports.context(job_id))

    assert again.data == {"spent": {"read": 8, "failed": 4}}
    assert result.data["books"]["failed"] == 5
    assert result.data["books"]["loaded"] == 5


def test_a_budget_that_is_spent_fails_the_job_when_it_asks_for_that(imports: Importing) -> None:
    job_id = submitted(imports, "..xxx...", max_errors=1, on_budget="fail")
    context = imports.context(job_id)

    with pytest.raises(JobError, match="2 records were refused, 1 are allowed") as raised:
        imports.run(context)
    Runs(imports.sessions).fail(context.job, raised.value)
    result = imports.run(imports.context(job_id))

    assert raised.value.code == "import.error_budget"
    assert result.data["books"]["failed"] == 3
    assert result.data["books"]["loaded"] == 5


def test_the_rate_is_that_of_the_whole_job(imports: Importing) -> None:
    job_id = submitted(imports, "......xx..xxxx", max_error_rate=0.3)
    in_the_first(imports, imports.context(job_id, error_budget_after_rows=4), parts=3)

    paused = stopped(imports, imports.context(job_id, error_budget_after_rows=4))

    assert paused.data == {"spent": {"read": 12, "failed": 4}}
