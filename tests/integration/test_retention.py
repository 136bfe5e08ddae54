"""Partitions: made before they are needed, dropped when nobody needs them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.persistence import new_jobs, partitions
from app.persistence.partitions import AHEAD, PERIOD, Period, first_id, period_of
from app.persistence.sessions import Sessions
from app.services.ids import new_id
from app.services.retention import Retention
from tests.factories import NO_POLICY, a_request, in_threads

WEDNESDAY = datetime(2031, 5, 14, 12, tzinfo=UTC)
"""In a week for which the tests' database is not prepared."""
THEN = period_of(WEDNESDAY)
LATER = WEDNESDAY + timedelta(days=60)


class _Clock:
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


def _retention(sessions: Sessions, at: datetime, *, days: int = 30) -> Retention:
    return Retention(sessions, _Clock(at), days=days)


@pytest.fixture
def sessions(sessions: Sessions) -> Iterator[Sessions]:
    """Afterwards the weeks of these tests are gone again."""
    yield sessions
    for first in (THEN, period_of(LATER)):
        for step in range(AHEAD + 1):
            for table in (*partitions.TABLES, partitions.SEGMENTS):
                with sessions.begin() as session:
                    partitions.drop(session, table, Period(first.start + PERIOD * step))


def _job_of(sessions: Sessions, at: datetime, *, state: str = "completed", numbered: bool = True) -> UUID:
    """A job with an event whose id was drawn at an instant, and that ended an hour later."""
    job_id = UUID(int=first_id(at).int | 0x7000_8000_0000_0000_0001)
    with sessions.begin() as session:
        new = new_jobs.new_job(a_request(), job_id=job_id, queue="data", retry=NO_POLICY)
        new_jobs.add_all(session, [new], room=0)
        session.execute(
            text("UPDATE jobs SET state = :state, finished_at = :at WHERE id = :id"),
            {"state": state, "at": at + timedelta(hours=1), "id": job_id},
        )
        if numbered:
            session.execute(text("UPDATE event_segments SET last_seq = 1 WHERE :id = ANY(jobs)"), {"id": job_id})
    return job_id


def _stands_in(sessions: Sessions, table: str, job_id: UUID) -> str | None:
    column = "id" if table == "jobs" else "job_id"
    with sessions.begin() as session:
        found: Any = session.execute(
            text(f"SELECT tableoid::regclass::text FROM {table} WHERE {column} = :id"), {"id": job_id}
        ).scalar_one_or_none()
    return None if found is None else str(found)


def test_a_job_of_now_stands_in_the_partition_of_its_week(sessions: Sessions) -> None:
    job_id = new_id()

    with sessions.begin() as session:
        new_jobs.add_all(session, [new_jobs.new_job(a_request(), job_id=job_id, queue="data", retry=NO_POLICY)], room=0)

    week = period_of(datetime.now(UTC))
    assert first_id(week.start) <= job_id < first_id(week.end)
    assert _stands_in(sessions, "jobs", job_id) == f"jobs_{week.suffix}"
    assert _stands_in(sessions, "job_events", job_id) == f"job_events_{week.suffix}"


def test_weeks_begin_on_monday(sessions: Sessions) -> None:
    assert THEN.start == datetime(2031, 5, 12, tzinfo=UTC)
    assert period_of(THEN.start) == THEN
    assert period_of(THEN.end) == Period(THEN.end)


def test_what_came_before_its_week_was_prepared_is_moved_there(sessions: Sessions) -> None:
    job_id = _job_of(sessions, WEDNESDAY)
    before = _stands_in(sessions, "jobs", job_id)

    _retention(sessions, WEDNESDAY).prepare()

    assert before == "jobs_other"
    assert _stands_in(sessions, "jobs", job_id) == f"jobs_{THEN.suffix}"
    assert _stands_in(sessions, "job_events", job_id) == f"job_events_{THEN.suffix}"


def test_of_four_that_prepare_at_once_one_does(sessions: Sessions) -> None:
    made = in_threads(4, lambda: _retention(sessions, WEDNESDAY).prepare())

    assert sorted(len(periods) for periods in made) == [0, 0, 0, AHEAD + 1]


def test_a_week_whose_jobs_are_past_their_time_is_dropped_whole(sessions: Sessions) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    job_id = _job_of(sessions, WEDNESDAY)
    with sessions.begin() as session:
        session.execute(text("INSERT INTO job_needs (job_id, needs_id) VALUES (:id, :id)"), {"id": job_id})

    dropped = _retention(sessions, LATER).drop_old()

    assert THEN in dropped
    assert _stands_in(sessions, "jobs", job_id) is None
    assert _stands_in(sessions, "job_events", job_id) is None
    assert _stands_in(sessions, "job_needs", job_id) is None
    with sessions.begin() as session:
        assert session.execute(text("SELECT to_regclass(:name)"), {"name": f"jobs_{THEN.suffix}"}).scalar_one() is None


def test_a_drop_that_was_cut_off_goes_on(sessions: Sessions) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    with sessions.begin() as session:
        partitions.drop(session, partitions.TABLES[0], THEN)

    assert THEN in _retention(sessions, LATER).drop_old()


@pytest.mark.parametrize(
    ("state", "numbered", "days"),
    [("running", True, 30), ("open", True, 30), ("completed", False, 30), ("completed", True, 0), ("failed", True, 59)],
    ids=["one runs", "one waits", "an event has no number", "jobs are kept for ever", "one ended lately"],
)
def test_a_week_that_somebody_needs_stays(sessions: Sessions, state: str, numbered: bool, days: int) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    job_id = _job_of(sessions, THEN.end - timedelta(minutes=1), state=state, numbered=numbered)

    dropped = _retention(sessions, LATER, days=days).drop_old()

    assert THEN not in dropped
    assert _stands_in(sessions, "jobs", job_id) == f"jobs_{THEN.suffix}"


def test_a_week_stays_while_one_of_its_files_does(sessions: Sessions) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    job_id = _job_of(sessions, WEDNESDAY)
    with sessions.begin() as session:
        session.execute(
            text(
                """
                INSERT INTO artifacts (id, job_id, tenant, kind, name, content_type, bucket, key, size_bytes)
                VALUES (:id, :id, 'default', 'export', 'a.csv', 'text/csv', 'b', 'a.csv', 1)
                """
            ),
            {"id": job_id},
        )

    assert THEN not in _retention(sessions, LATER).drop_old()


def test_tables_in_use_are_left_for_the_next_time(sessions: Sessions) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    job_id = _job_of(sessions, WEDNESDAY)

    with sessions.begin() as reader:
        reader.execute(text("SELECT FROM jobs WHERE id = :id"), {"id": job_id})
        busy = _retention(sessions, LATER).drop_old()

    assert THEN not in busy
    assert THEN in _retention(sessions, LATER).drop_old()


def test_the_order_of_events_stays_while_an_older_job_does(sessions: Sessions) -> None:
    _retention(sessions, WEDNESDAY).prepare()
    job_id = _job_of(sessions, WEDNESDAY, state="running")
    _retention(sessions, LATER).prepare()
    next_week = Period(THEN.end)

    dropped = _retention(sessions, LATER).drop_old()
    before = _segments_stand(sessions, THEN), _segments_stand(sessions, next_week)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'completed' WHERE id = :id"), {"id": job_id})
    _retention(sessions, LATER).drop_old()

    assert next_week in dropped
    assert before == (True, True)
    assert not _segments_stand(sessions, THEN)
    assert not _segments_stand(sessions, next_week)


def _segments_stand(sessions: Sessions, period: Period) -> bool:
    with sessions.begin() as session:
        name = f"{partitions.SEGMENTS}_{period.suffix}"
        return session.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is not None
