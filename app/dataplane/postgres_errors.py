"""What Postgres's errors mean to whoever writes rows: the row's fault, another writer's, or the installation's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import psycopg2
from sqlalchemy.exc import DBAPIError

from app.dataplane.faults import Fault
from app.domain.errors import JobError, TransientError

_CANCELLED: Final = "57014"


class OverTime(Exception):  # noqa: N818 - it is what Postgres calls a cancelled query
    """A transaction took longer than it may, found between two statements; within one Postgres finds it."""

    pgcode = _CANCELLED


PostgresError: TypeAlias = psycopg2.Error | DBAPIError | OverTime
POSTGRES_ERRORS: Final = (psycopg2.Error, DBAPIError)
_ROW_FAULTS: Final = ("22", "23", "54000")
_RETRIED: Final = frozenset({"40001", "40P01", "55P03"})
_NO_ROOM: Final = "53"
_ATTEMPTS: Final = 6
_FIRST_WAIT_S: Final = 0.05

_T = TypeVar("_T")


def retried(write: Callable[[], _T], *, again: Callable[[], None], what: str, limit_s: float | None = None) -> _T:
    """What ``write``, a whole transaction, gives; once more after a deadlock or a lock that was not to be had.

    Args:
        again: Called after a failure that is followed by another attempt, or by the error when it was the last.
        what: What is written, for the message.
        limit_s: What ``write`` allows itself: it is tried again when that was over, too.
    Raises:
        TransientError: Deadlocks, too little time or a lack of room that did not pass.
        JobError: The table refuses for another reason than its rows.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return write()
        except (*POSTGRES_ERRORS, OverTime) as error:
            state = sqlstate(error)
            if state not in _RETRIED and (state != _CANCELLED or limit_s is None):
                raise _as_job_error(error) from error
            if attempt == _ATTEMPTS - 1:
                raise _given_up(error, what, limit_s) from error
        time.sleep(_FIRST_WAIT_S * 2**attempt)
        again()
    raise AssertionError("the loop returns or raises")


def _given_up(error: PostgresError, what: str, limit_s: float | None) -> TransientError:
    state = sqlstate(error)
    if state != _CANCELLED:
        return TransientError(f"{what} met other writers {_ATTEMPTS} times: {_message(error)}", code=f"db.{state}")
    return TransientError(
        f"{what} took longer than its {limit_s:g} s, {_ATTEMPTS} times",
        code="import.batch_timeout",
        hint="See who holds locks on the table, or import with a smaller batch_size or a longer batch_timeout_s.",
    )


def sqlstate(error: PostgresError) -> str | None:
    """The five characters that name the error; ``None`` when the connection is gone."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    state: str | None = getattr(original, "pgcode", None)
    return state


def is_of_a_row(error: PostgresError) -> bool:
    """Whether the data of some row is at fault."""
    return (sqlstate(error) or "").startswith(_ROW_FAULTS)


def refusal(error: PostgresError) -> Fault:
    """What the ledger says of the row that Postgres refused."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    return Fault(f"db.{sqlstate(error)}", f"Postgres refused the row: {_message(error)}", original.diag.column_name)


def _message(error: PostgresError) -> str:
    """What Postgres said, in one line, without the statement."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    diagnosis = getattr(original, "diag", None)
    parts = [getattr(diagnosis, "message_primary", None) or str(original), getattr(diagnosis, "message_detail", None)]
    return "; ".join(part for part in parts if part).replace("\n", " ")[:500]


def _as_job_error(error: PostgresError) -> Exception:
    """What a database error means for the job; a lost connection stays what it is, for the worker to judge."""
    state = sqlstate(error)
    if state is None or state.startswith(("08", "57")):
        return error
    if state.startswith(_NO_ROOM):
        return TransientError(f"Postgres has no room: {_message(error)}", code=f"db.{state}")
    return JobError(f"Postgres refused to write to the table: {_message(error)}", code=f"db.{state}")
