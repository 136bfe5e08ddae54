"""Prepared statements past SQLAlchemy's results: errors come as its own, and a broken connection is not used again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, DBAPIError

from app.persistence.prepared import Prepared
from app.persistence.sessions import SingleStatements, make_sessions, open_engine
from app.services.runs import is_connection_lost
from config.settings import Settings

DIVIDE = Prepared("SELECT CAST(:number AS integer) / CAST(:by AS integer) AS quotient")
PID = Prepared("SELECT pg_backend_pid() AS pid")


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """One connection."""
    url = settings.database_url.get_secret_value()
    engine = open_engine(url, application_name="tests prepared", pool_size=1)
    yield engine
    engine.dispose()


def test_rows_have_names(engine: Engine) -> None:
    with make_sessions(engine).begin() as session:
        (row,) = DIVIDE.execute(session, {"number": 7, "by": 2})

    assert row.quotient == 3


def test_a_percent_sign_stays_one(engine: Engine) -> None:
    ten = Prepared("SELECT '10%' AS plain, CAST(:value AS text) LIKE '1%' AS alike")

    with make_sessions(engine).begin() as session:
        (row,) = ten.execute(session, {"value": "1%0"})

    assert (row.plain, row.alike) == ("10%", True)


def test_an_error_of_a_statement_is_one_of_sqlalchemys_and_the_connection_is_kept(engine: Engine) -> None:
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        before = PID.execute(session, {})[0].pid

    with pytest.raises(DataError) as refused, sessions.begin() as session:
        DIVIDE.execute(session, {"number": 1, "by": 0})

    with sessions.begin() as session:
        after = PID.execute(session, {})[0].pid
    assert not is_connection_lost(refused.value)
    assert after == before


def test_a_connection_that_was_ended_is_replaced_and_prepares_anew(engine: Engine, settings: Settings) -> None:
    sessions = make_sessions(engine)
    other = open_engine(settings.database_url.get_secret_value(), application_name="tests other", pool_size=1)
    with sessions.begin() as session:
        before = PID.execute(session, {})[0].pid
    with make_sessions(other).begin() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})
    other.dispose()

    with pytest.raises(DBAPIError) as lost, sessions.begin() as session:
        PID.execute(session, {})
    with sessions.begin() as session:
        after = PID.execute(session, {})[0].pid

    assert is_connection_lost(lost.value)
    assert after != before


def test_no_plan_is_compiled_just_in_time(engine: Engine) -> None:
    with make_sessions(engine).begin() as session:
        assert session.execute(text("SHOW jit")).scalar_one() == "off"
    with SingleStatements(make_sessions(engine)).begin() as single:
        assert single.execute(text("SHOW jit")).scalar_one() == "off"
