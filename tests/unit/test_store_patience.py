"""What a worker does while Postgres is away, and how an error is kept on a job."""

from __future__ import annotations

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.domain.errors import JobError
from app.services.runs import describe, is_connection_lost, patiently
from tests.factories import a_job


class Coded(psycopg2.OperationalError):
    """An error with a SQLSTATE, as the server sends it."""

    pgcode = "00000"


def an_error(code: str | None, *, invalidated: bool = False) -> OperationalError:
    kind = psycopg2.OperationalError if code is None else type("Coded", (Coded,), {"pgcode": code})
    said = kind("the server closed the connection unexpectedly")
    return OperationalError("SELECT 1", {}, said, connection_invalidated=invalidated)


class Flaky:
    """Work that fails with each of ``errors`` in turn before it is done."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (an_error("57P01"), True),
        (an_error("57P03"), True),
        (an_error("25P03"), True),
        (an_error(None), True),
        (an_error("40001", invalidated=True), True),
        (an_error("40001"), False),
        (IntegrityError("INSERT", {}, psycopg2.IntegrityError("duplicate key")), False),
        (ConnectionResetError("not Postgres"), False),
    ],
    ids=["shut down", "starting", "idle limit", "socket", "invalidated", "serialization", "constraint", "not Postgres"],
)
def test_a_lost_connection_is_told_from_an_error_of_the_statement(error: Exception, lost: bool) -> None:
    assert is_connection_lost(error) is lost


def test_work_is_done_again_until_postgres_answers() -> None:
    work = Flaky(an_error("57P01"), an_error(None))

    done = patiently(work)

    assert (done, work.tries) == ("done", 3)


def test_an_error_of_the_statement_itself_is_not_waited_out() -> None:
    work = Flaky(IntegrityError("INSERT", {}, psycopg2.IntegrityError("duplicate key")))

    with pytest.raises(IntegrityError):
        patiently(work)

    assert work.tries == 1


def test_patience_has_an_end() -> None:
    work = Flaky(*[an_error("57P03")] * 50)

    with pytest.raises(DBAPIError):
        patiently(work, patience_s=0.15)

    assert 1 < work.tries < 50


def test_an_error_keeps_its_code_hint_and_facts_without_what_postgres_cannot_store() -> None:
    error = JobError("bad \0 and \ud800", code="csv.empty", hint="Send rows.", data={"line": 3})

    kept = describe(error, a_job(attempts=2))

    assert kept == {
        "code": "csv.empty",
        "message": "bad \\0 and ?",
        "hint": "Send rows.",
        "data": {"line": 3},
        "attempt": 2,
    }


def test_a_crash_is_kept_with_its_type_and_cut_to_a_readable_length() -> None:
    kept = describe(ValueError("x" * 10_000), a_job(attempts=1))

    assert kept["code"] == "job.crashed"
    assert kept["message"].startswith("ValueError: xxx")
    assert len(kept["message"]) == 4_000
