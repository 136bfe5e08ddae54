"""What the statements that every job passes read when the statistics are of an idle hour, before a flood came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.job_types import Result
from app.domain.jobs import Priority
from app.persistence import admission, ends, new_jobs
from app.persistence.jobs import advance, claim
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.jobs import new_id
from config.settings import Settings
from tests.factories import NO_POLICY, a_request, a_slot

FLOOD = 2000
AT_ONCE = 100
EACH = 10
"""Index entries that may be read for a job, on all partitions."""

T = TypeVar("T")
_READ = text(
    "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes "
    "WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'jobs'::regclass)"
)


@pytest.fixture
def flooded(sessions: Sessions, settings: Settings) -> Iterator[Sessions]:
    """The engine's connection to a queue whose jobs came after the last look at the table, when none waited or ran."""
    with sessions.begin() as session:
        new_jobs.add_all(session, many(FLOOD), room=0)
        session.execute(text("UPDATE jobs SET state = 'completed', finished_at = now()"))
    with sessions.kw["bind"].execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    with sessions.begin() as session:
        new_jobs.add_all(session, many(FLOOD), room=0)
    url = settings.database_url.get_secret_value()
    engine = open_engine(url, application_name="engine", pool_size=1, by_index=True)
    yield make_sessions(engine)
    engine.dispose()


def many(count: int) -> list[new_jobs.NewJob]:
    return [new_jobs.new_job(a_request(), job_id=new_id(), queue="small", retry=NO_POLICY) for _ in range(count)]


def entries_read(sessions: Sessions, work: Callable[[Session], T]) -> tuple[int, T]:
    """How many index entries of jobs a transaction reads, and what it answers."""
    with sessions.begin() as session:
        before = session.execute(_READ).scalar_one()
    with sessions.begin() as session:
        answer = work(session)
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    with sessions.begin() as session:
        return int(session.execute(_READ).scalar_one() - before), answer


def test_what_every_job_passes_reads_few_entries_a_job_after_an_idle_hour(flooded: Sessions) -> None:
    slot = a_slot(flooded)

    def admit(session: Session) -> int:
        return admission.admit(session, "small", Priority.NORMAL, bound=AT_ONCE)

    admitted, count = entries_read(flooded, admit)
    claimed, held = entries_read(flooded, lambda session: claim(session, "small", slot, most=AT_ONCE))
    advanced, _ = entries_read(flooded, lambda session: [advance(session, job, rows=1) for job in held])
    ended, done = entries_read(flooded, lambda session: ends.complete(session, [(job, Result()) for job in held]))

    assert count == len(held) == len(done) == AT_ONCE
    assert max(admitted, claimed, advanced, ended) < EACH * AT_ONCE
