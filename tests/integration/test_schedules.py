"""Schedules that fire: each instant once, by their policies, by the database's time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.calendars import MissedPolicy, OverlapPolicy
from app.domain.lifecycle import JobState
from app.domain.pipelines import Stage
from app.domain.schedules import JOBS_AT_ONCE
from app.engine.fire import fire_overdue
from app.persistence import schedules
from app.persistence.sessions import Sessions
from app.services.families import Payload
from tests.factories import in_threads
from tests.integration.timetables import HOUR, Timetable, a_body

_ON_TIME = timedelta(seconds=1)
_ALL = {"missed_policy": MissedPolicy.ALL, "missed_window_s": 3 * 3600.0}


def a_batch(payloads: int) -> dict[str, Any]:
    """A template of a batch, as the API hands it on."""
    items = [Payload("echo", {"value": place}) for place in range(payloads)]
    return {"type": "batch", "payloads": items, "max_concurrency": 2}


def count_of_jobs(session: Session) -> int:
    return int(session.execute(text("SELECT count(*) FROM jobs")).scalar_one())


@pytest.fixture
def here(sessions: Sessions) -> Timetable:
    return Timetable(sessions)


@pytest.mark.parametrize(
    ("policy", "made"), [(MissedPolicy.SKIP, 0), (MissedPolicy.LAST, 1), (MissedPolicy.ALL, 3)], ids=str
)
def test_what_was_missed_for_hours_is_made_up_for_by_the_policy(
    here: Timetable, policy: MissedPolicy, made: int
) -> None:
    schedule = here.hourly(slept=9, missed_policy=policy, missed_window_s=3 * 3600.0)
    assert schedule.next_fire_at is not None
    last = schedule.next_fire_at + 9 * HOUR

    here.firing.fire(schedule.id)

    assert here.fired(schedule) == [last - later * HOUR for later in reversed(range(made))]
    assert here.schedules.get("default", schedule.id).next_fire_at == last + HOUR
    assert here.timer.alarms == {schedule.id: last + HOUR}


@pytest.mark.parametrize("policy", list(MissedPolicy), ids=str)
def test_a_fire_that_is_a_second_late_is_on_time_for_every_policy(here: Timetable, policy: MissedPolicy) -> None:
    schedule = here.hourly(ago=_ON_TIME, missed_policy=policy)

    here.firing.fire(schedule.id)

    assert here.fired(schedule) == [schedule.next_fire_at]


def test_more_fires_than_one_transaction_takes_leave_no_gap(here: Timetable) -> None:
    body = a_body(rules={"intervals": "1s"}, **_ALL)
    made = here.schedules.create("default", body, actor="test")
    assert made.next_fire_at is not None
    schedule = here.put_back(made, made.next_fire_at - timedelta(seconds=500))

    while here.firing.fire(schedule.id) > 100:
        pass

    fired = here.fired(schedule)
    assert len(fired) >= 500
    assert fired == [schedule.next_fire_at + timedelta(seconds=place) for place in range(len(fired))]  # type: ignore[operator]  # it is set


@pytest.mark.feature("S3-40")
def test_threads_that_race_make_one_job_for_an_instant(here: Timetable) -> None:
    schedule = here.hourly(slept=2, **_ALL)

    made = in_threads(8, lambda: here.firing.fire(schedule.id))

    assert sorted(made) == [0] * 7 + [3]
    assert len(here.jobs_of(schedule)) == len(here.fired(schedule)) == 3


def test_an_instant_that_has_fired_is_not_fired_again_though_the_row_says_so(here: Timetable) -> None:
    schedule = here.hourly(ago=_ON_TIME)
    here.firing.fire(schedule.id)
    assert schedule.next_fire_at is not None
    here.put_back(schedule, schedule.next_fire_at)

    made = here.firing.fire(schedule.id)

    assert made == 0
    assert len(here.jobs_of(schedule)) == 1


@pytest.mark.parametrize(
    ("policy", "states"),
    [
        (OverlapPolicy.ALLOW, [JobState.QUEUED] * 3),
        (OverlapPolicy.SKIP, [JobState.QUEUED]),
        (OverlapPolicy.QUEUE, [JobState.QUEUED, JobState.BLOCKED]),
    ],
    ids=str,
)
def test_fires_that_overlap_follow_the_policy(here: Timetable, policy: OverlapPolicy, states: list[JobState]) -> None:
    schedule = here.hourly(slept=2, overlap_policy=policy, **_ALL)

    here.firing.fire(schedule.id)

    assert [job.state for job in here.jobs_of(schedule)] == states


def test_a_fire_is_dropped_while_an_earlier_run_is_not_over_and_not_after(here: Timetable) -> None:
    schedule = here.hourly(slept=2, overlap_policy=OverlapPolicy.SKIP)
    assert schedule.next_fire_at is not None
    here.firing.fire(schedule.id)
    here.put_back(schedule, schedule.next_fire_at + HOUR)
    with here.sessions.begin() as session:
        session.execute(text("DELETE FROM schedule_fires"))

    while_it_runs = here.firing.fire(schedule.id)
    here.finish(*here.claim())
    here.put_back(schedule, schedule.next_fire_at + HOUR)
    after = here.firing.fire(schedule.id)

    assert (while_it_runs, after) == (0, 1)


def test_the_one_that_waits_starts_when_the_earlier_run_has_failed(here: Timetable) -> None:
    schedule = here.hourly(slept=2, overlap_policy=OverlapPolicy.QUEUE, **_ALL)
    here.firing.fire(schedule.id)
    first, second = here.jobs_of(schedule)

    here.fail(*here.claim())
    here.tick()

    assert [job.id for job in here.claim()] == [second.id]
    assert here.state(first.id) is JobState.FAILED


def test_jitter_moves_the_begin_of_the_job_and_not_the_instant(here: Timetable) -> None:
    schedule = here.hourly(ago=_ON_TIME, more_rules={"jitter": "30m"})
    assert schedule.next_fire_at is not None
    begin = schedule.rules.begin_of(str(schedule.id), schedule.next_fire_at)

    here.firing.fire(schedule.id)

    [job] = here.jobs_of(schedule)
    assert job.run_after == (begin if begin > job.created_at else None)
    assert here.fired(schedule) == [schedule.next_fire_at]


def test_what_is_due_is_for_the_clock_of_the_database_to_say(here: Timetable) -> None:
    schedule = here.hourly()
    assert schedule.next_fire_at is not None
    here.put_back(schedule, schedule.next_fire_at + HOUR)
    ahead = """
        CREATE SCHEMA ahead;
        CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$;
        SET LOCAL search_path = ahead, public, pg_catalog
    """

    now = here.firing.fire(schedule.id)
    with here.sessions() as session:
        session.execute(text(ahead))
        in_an_hour = here.firing.fire_overdue(session)
        session.rollback()

    assert (now, len(in_an_hour.jobs)) == (0, 1)


def test_the_engine_fires_every_schedule_that_is_overdue(here: Timetable) -> None:
    body = a_body(rules={"intervals": "1h"})
    made = [here.schedules.create("default", body, actor="test") for _ in range(260)]
    with here.sessions.begin() as session:
        session.execute(text("UPDATE schedules SET next_fire_at = next_fire_at - interval '1 hour'"))

    fired, again = (fire_overdue(here.leader, here.firing) for _ in range(2))

    assert (fired, again) == (260, 0)
    assert {len(here.fired(schedule)) for schedule in made} == {1}


def test_a_schedule_that_is_not_late_enough_is_left_to_its_alarm(here: Timetable) -> None:
    schedule = here.hourly(ago=_ON_TIME)

    fired = fire_overdue(here.leader, here.firing)

    assert fired == 0
    assert here.fired(schedule) == []


@pytest.mark.feature("S3-03", "S3-32")
def test_a_schedule_without_rules_never_fires_by_itself_and_runs_when_triggered(here: Timetable) -> None:
    schedule = here.schedules.create("default", a_body(), actor="test")

    by_itself = here.firing.fire(schedule.id) + fire_overdue(here.leader, here.firing)
    job = here.schedules.trigger("default", schedule.id, actor="ada")

    assert (schedule.next_fire_at, by_itself) == (None, 0)
    assert (job.state, job.created_by, job.schedule_id) == (JobState.QUEUED, "ada", schedule.id)


@pytest.mark.feature("S3-12", "S3-14", "S3-15")
def test_pausing_holds_timetable_and_runs_and_resuming_lets_both_go_on(here: Timetable) -> None:
    schedule = here.hourly(slept=1, missed_policy=MissedPolicy.LAST)
    waiting = here.schedules.trigger("default", schedule.id, actor="test")

    paused = here.schedules.pause("default", schedule.id, actor="test", runs=True)
    fired = here.firing.fire(schedule.id) + fire_overdue(here.leader, here.firing)
    claimed = here.claim()
    held = here.jobs.get("default", waiting.id)
    resumed = here.schedules.resume("default", schedule.id, actor="test", runs=True)
    here.tick()

    assert (paused.paused, fired, claimed) == (True, 0, [])
    assert (held.state, held.paused) == (JobState.OPEN, True)
    assert resumed.next_fire_at == here.timer.alarms[schedule.id]
    assert len(here.fired(schedule)) == 2
    assert len(here.claim()) == 2


def test_an_alarm_of_a_schedule_that_is_gone_is_taken_away(here: Timetable) -> None:
    schedule = here.hourly()
    here.schedules.delete("default", schedule.id, versions=None)
    here.timer.alarms.clear()

    here.firing.fire(schedule.id)

    assert here.timer.alarms == {schedule.id: None}


@pytest.mark.feature("S3-01")
def test_each_fire_of_a_batch_makes_all_of_its_payloads(here: Timetable) -> None:
    schedule = here.hourly(slept=1, template=a_batch(3), **_ALL)

    made = here.firing.fire(schedule.id)

    batches = here.jobs_of(schedule)
    assert (made, [(job.type, job.state) for job in batches]) == (2, [("batch", JobState.OPEN)] * 2)
    assert "engine" in here.bell.rings
    assert here.work_off() == [4, 2]
    for batch in batches:
        children = here.families.children("default", batch.id, after=-1, limit=10)
        assert [(child.config, child.state) for child in children] == [
            ({"value": place}, JobState.COMPLETED) for place in range(3)
        ]
        assert here.state(batch.id) is JobState.COMPLETED


def test_each_fire_of_a_pipeline_makes_all_of_its_stages(here: Timetable) -> None:
    stages = [Stage("one", "echo", {}), Stage("two", "echo", {"value": "{{ stages.one.result }}"}, ("one",))]
    schedule = here.hourly(ago=_ON_TIME, template={"type": "pipeline", "name": "nightly", "stages": stages})

    here.firing.fire(schedule.id)

    [pipeline] = here.jobs_of(schedule)
    assert here.work_off() == [1, 1]
    assert (pipeline.name, here.state(pipeline.id)) == ("nightly", JobState.COMPLETED)
    assert set(here.children(pipeline.id)) == {"one", "two"}


def test_a_batch_of_a_schedule_waits_for_the_one_before_it(here: Timetable) -> None:
    schedule = here.hourly(slept=1, template=a_batch(1), overlap_policy=OverlapPolicy.QUEUE, **_ALL)
    here.firing.fire(schedule.id)
    first, second = here.jobs_of(schedule)

    here.tick()
    while_the_first_runs = here.state(second.id)
    here.work_off()

    assert while_the_first_runs is JobState.BLOCKED
    assert here.states(first.id, second.id) == [JobState.COMPLETED] * 2


@pytest.mark.feature("S3-12", "S3-14")
def test_pausing_a_schedule_holds_the_payloads_of_its_batches_too(here: Timetable) -> None:
    schedule = here.hourly(ago=_ON_TIME, template=a_batch(3))
    here.firing.fire(schedule.id)
    here.tick()

    here.schedules.pause("default", schedule.id, actor="test", runs=True)
    while_paused = here.work_off()
    here.schedules.resume("default", schedule.id, actor="test", runs=True)
    after = here.work_off()

    assert (while_paused, after) == ([], [2, 1])
    assert [here.state(job.id) for job in here.jobs_of(schedule)] == [JobState.COMPLETED]


def test_what_large_batches_make_at_once_is_bounded(here: Timetable) -> None:
    large = [here.hourly(slept=3, template=a_batch(900), **_ALL) for _ in range(2)]
    with here.sessions.begin() as session:
        before = count_of_jobs(session)
        here.firing.fire_overdue(session)
        at_once = count_of_jobs(session) - before

    made = fire_overdue(here.leader, here.firing)

    assert at_once <= JOBS_AT_ONCE
    assert made == 2 * 3 - 2
    assert [len(here.fired(schedule)) for schedule in large] == [3, 3]


@pytest.mark.parametrize("change", [{"rules": {"intervals": "7d"}}, {"name": "weekly"}], ids=min)
def test_what_is_due_before_an_edit_fires_as_it_was(here: Timetable, change: dict[str, Any]) -> None:
    schedule = here.hourly(ago=_ON_TIME)

    changed = here.schedules.update("default", schedule.id, change, actor="test", versions=None)

    assert here.fired(schedule) == [schedule.next_fire_at]
    with here.sessions.begin() as session:
        assert changed.next_fire_at == changed.rules.next_after(schedules.now(session))
