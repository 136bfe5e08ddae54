"""What statements read of many jobs: those that every job passes, planned before a flood came, and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.job_types import Result
from app.domain.jobs import JobEvent, Priority
from app.domain.lifecycle import Event
from app.persistence import admission, ends, events, job_lists, new_jobs, numbering
from app.persistence.job_lists import Filters
from app.persistence.jobs import advance, claim
from app.persistence.partitions import first_id
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.ids import new_id
from config.settings import Settings
from tests.factories import NO_POLICY, a_request, a_slot

FLOOD = 2000
AT_ONCE = 100
EACH = 10
"""Index entries that may be read for a job, on all partitions."""

PLANNED_AFTER = 8
"""Executions, more than after which Postgres keeps the plan of a prepared statement."""

T = TypeVar("T")
_READ = text(
    "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes "
    "WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST(:table AS regclass))"
)


@pytest.fixture
def engines(settings: Settings) -> Iterator[Sessions]:
    """One connection, as the engine's are."""
    url = settings.database_url.get_secret_value()
    engine = open_engine(url, application_name="engine", pool_size=1, by_index=True)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture(params=["a new installation", "an idle hour"])
def flooded(sessions: Sessions, engines: Sessions, request: pytest.FixtureRequest) -> Sessions:
    """A queue whose jobs came after the last look at its tables.

    Of a new installation, the statements were planned for its first jobs; after an idle hour, none waited or ran.
    """
    if request.param == "a new installation":
        slot = a_slot(engines)
        for _ in range(PLANNED_AFTER):
            with engines.begin() as session:
                new_jobs.add_all(session, many(1), room=0)
                admission.admit(session, "small", Priority.NORMAL, bound=1)
                [job] = claim(session, "small", slot)
                advance(session, job, rows=1)
                ends.complete(session, [(job, Result())])
    else:
        with sessions.begin() as session:
            new_jobs.add_all(session, many(FLOOD), room=0)
            session.execute(text("UPDATE jobs SET state = 'completed', finished_at = now()"))
        vacuum(sessions)
    with sessions.begin() as session:
        new_jobs.add_all(session, many(FLOOD), room=0)
    return engines


def many(count: int, **changes: object) -> list[new_jobs.NewJob]:
    request = a_request(**changes)
    return [new_jobs.new_job(request, job_id=new_id(), queue="small", retry=NO_POLICY) for _ in range(count)]


def vacuum(sessions: Sessions) -> None:
    with sessions.kw["bind"].execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE jobs, job_events, event_segments"))


def entries_read(sessions: Sessions, work: Callable[[Session], T], *, table: str = "jobs") -> tuple[int, T]:
    """How many of a table's index entries a transaction reads, and what it answers."""
    with sessions.begin() as session:
        before = session.execute(_READ, {"table": table}).scalar_one()
    with sessions.begin() as session:
        answer = work(session)
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    with sessions.begin() as session:
        return int(session.execute(_READ, {"table": table}).scalar_one() - before), answer


def test_what_every_job_passes_reads_few_entries_a_job(flooded: Sessions) -> None:
    slot = a_slot(flooded)

    def admit(session: Session) -> int:
        return admission.admit(session, "small", Priority.NORMAL, bound=AT_ONCE)

    admitted, count = entries_read(flooded, admit)
    claimed, held = entries_read(flooded, lambda session: claim(session, "small", slot, most=AT_ONCE))
    advanced, _ = entries_read(flooded, lambda session: [advance(session, job, rows=1) for job in held])
    ended, left = entries_read(flooded, lambda session: ends.complete(session, [(job, Result()) for job in held]))

    assert count == len(held) == AT_ONCE
    assert not left
    assert max(admitted, claimed, advanced, ended) < EACH * AT_ONCE


def test_a_page_of_events_reads_few_events(flooded: Sessions) -> None:
    with flooded.begin() as session:
        while numbering.number(session, most=1000)[0]:
            pass

    def page(session: Session) -> list[JobEvent]:
        return events.after(session, "default", FLOOD // 2, types=[Event.SUBMIT], limit=AT_ONCE)

    read, found = entries_read(flooded, page, table="job_events")

    assert [event.seq for event in found] == list(range(FLOOD // 2 + 1, FLOOD // 2 + 1 + AT_ONCE))
    assert read < EACH * AT_ONCE


def test_a_list_by_time_reads_few_jobs_that_are_younger(sessions: Sessions, engines: Sessions) -> None:
    end, page = datetime.now(UTC) - timedelta(hours=2), 51
    times = [end + timedelta(seconds=seconds) for seconds in range(-600, 3600, 3)]
    new = [new_jobs.new_job(a_request(), job_id=first_id(at), queue="small", retry=NO_POLICY) for at in times]
    with sessions.begin() as session:
        new_jobs.add_all(session, new, room=0)
        session.execute(
            text("UPDATE jobs SET created_at = at FROM unnest(:ids, :times) AS made (job_id, at) WHERE id = job_id"),
            {"ids": [job.id for job in new], "times": times},
        )
    vacuum(sessions)

    read, found = entries_read(
        engines, lambda session: job_lists.find(session, "default", Filters(created_until=end), limit=page)
    )

    assert [job.created_at for job in found] == [end - timedelta(seconds=3 * n) for n in range(1, page + 1)]
    assert read < EACH * page


def test_a_list_by_label_reads_few_jobs_without_it_and_few_that_are_older(
    sessions: Sessions, engines: Sessions
) -> None:
    page = 51
    new = [many(1, labels={"run": "nightly"} if n % 10 == 0 else {})[0] for n in range(FLOOD)]
    with sessions.begin() as session:
        new_jobs.add_all(session, new, room=0)
    vacuum(sessions)

    read, found = entries_read(
        engines,
        lambda session: job_lists.find(session, "default", Filters(labels={"run": "nightly"}), limit=page),
    )

    assert [job.id for job in found] == [job.id for job in reversed(new) if job.request.labels][:page]
    assert read < 2 * page
