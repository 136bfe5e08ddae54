"""What is done about Postgres's errors while rows are written: again, not again, or given to the worker to judge."""

from __future__ import annotations

import psycopg2
import pytest

from app.dataplane import postgres_errors
from app.dataplane.postgres_errors import OverTime, retried
from app.domain.errors import JobError, TransientError


class Coded(psycopg2.Error):
    """An error with a SQLSTATE, as the server sends it."""

    pgcode = "00000"


def an_error(code: str | None) -> psycopg2.Error:
    return type("Said", (Coded,), {"pgcode": code})("the server\nsaid so")


class Write:
    """A transaction that fails with each of ``errors`` in turn before it is committed."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.again = 0

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "committed"

    def note(self) -> None:
        self.again += 1


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_errors.time, "sleep", lambda _: None)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_a_write_that_met_others_is_tried_again(code: str) -> None:
    write = Write(an_error(code), an_error(code))

    assert retried(write, again=write.note, what="the batch") == "committed"
    assert write.again == 2


def test_a_write_that_meets_others_each_time_is_worth_another_attempt_of_the_job() -> None:
    write = Write(*[an_error("40P01")] * 50)

    with pytest.raises(TransientError, match="the batch met other writers 6 times: the server said so") as given_up:
        retried(write, again=write.note, what="the batch")

    assert given_up.value.code == "db.40P01"
    assert len(write.errors) == 44


@pytest.mark.parametrize("error", [an_error("57014"), OverTime()], ids=["within a statement", "between two"])
def test_a_write_whose_time_was_over_is_tried_again_and_worth_another_attempt_of_the_job(error: Exception) -> None:
    write = Write(*[error] * 50)

    with pytest.raises(TransientError, match=r"the batch took longer than its 0\.5 s, 6 times") as given_up:
        retried(write, again=write.note, what="the batch", limit_s=0.5)

    assert given_up.value.code == "import.batch_timeout"
    assert len(write.errors) == 44


def test_a_write_without_a_limit_that_was_cancelled_is_not_tried_again() -> None:
    cancelled = an_error("57014")
    write = Write(cancelled)

    with pytest.raises(psycopg2.Error) as told:
        retried(write, again=write.note, what="the request")

    assert told.value is cancelled


def test_a_full_disk_may_pass() -> None:
    write = Write(an_error("53100"))

    with pytest.raises(TransientError, match="Postgres has no room"):
        retried(write, again=write.note, what="the batch")


def test_what_the_table_itself_refuses_is_permanent() -> None:
    write = Write(an_error("42P01"))

    with pytest.raises(JobError, match="Postgres refused to write to the table") as refused:
        retried(write, again=write.note, what="the batch")

    assert type(refused.value) is JobError
    assert write.again == 0


@pytest.mark.parametrize("code", [None, "57P01", "08006"])
def test_a_lost_connection_stays_what_it_is(code: str | None) -> None:
    lost = an_error(code)
    write = Write(lost)

    with pytest.raises(psycopg2.Error) as told:
        retried(write, again=write.note, what="the batch")

    assert told.value is lost
