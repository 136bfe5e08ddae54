"""Alarms: one entry of RedBeat per schedule, set again when it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from redbeat.schedulers import get_redis

from app.engine.fire import fire_overdue, rearm
from app.engine.loop import Engine
from app.persistence.sessions import Sessions
from app.scheduling.beat import AlarmScheduler
from app.scheduling.redbeat import ALARMS_AT_ONCE, RedBeatTimer
from app.services.firing import Firing
from app.services.schedules import Schedules
from config.celery import celery_config
from config.settings import Settings
from tests.integration.timetables import HOUR, Timetable, a_body


@pytest.fixture
def own(settings: Settings) -> Settings:
    """Settings with a place of their own in Redis."""
    return settings.model_copy(update={"redbeat_key_prefix": f"test:{uuid4()}:"})


@pytest.fixture
def timer(own: Settings) -> RedBeatTimer:
    return RedBeatTimer(own)


@pytest.fixture
def beat(own: Settings) -> Iterator[AlarmScheduler]:
    """Beat's scheduler."""
    app = Celery("tests.beat", set_as_current=False)
    app.config_from_object(celery_config(own))
    yield AlarmScheduler(app)
    get_redis(app).close()


@pytest.fixture
def here(sessions: Sessions) -> Timetable:
    return Timetable(sessions)


def now() -> datetime:
    return datetime.now(UTC)


def wipe(own: Settings) -> None:
    client = redis.Redis.from_url(own.redis_url.get_secret_value())
    client.delete(*client.keys(f"{own.redbeat_key_prefix}*"))
    client.close()


def send_due(beat: Any, *, until: int) -> list[tuple[str, list[str], str]]:
    """Have beat look until it has sent ``until`` messages, and once more; what it sent."""
    sent: list[tuple[str, list[str], str]] = []
    beat.send_task = lambda task, args, *_, queue, **__: sent.append((task, list(args), queue))
    give_up_at = monotonic() + 30
    while len(sent) < until and monotonic() < give_up_at:
        sleep(0.05)
        look(beat)
    look(beat)
    return sent


def look(beat: Any) -> None:
    beat.send_alarms()
    for entry in beat.schedule.values():
        beat.maybe_due(entry)


def test_beat_sends_an_alarm_that_is_due_once_and_then_lets_it_rest(timer: RedBeatTimer, beat: Any) -> None:
    due, later = uuid4(), uuid4()
    timer.arm({due: now() - timedelta(seconds=5), later: now() + HOUR})
    assert timer.flush(10)

    sent = send_due(beat, until=1)

    assert sent == [("haulier.fire_schedule", [str(due)], "small")]
    assert timer.armed() == {due: False, later: True}


def test_alarms_of_one_instant_travel_together(timer: RedBeatTimer, beat: Any) -> None:
    schedules = [uuid4() for _ in range(ALARMS_AT_ONCE + 1)]
    timer.arm(dict.fromkeys(schedules, now()))
    assert timer.flush(10)

    sent = send_due(beat, until=2)

    assert sorted(len(ids) for _, ids, _ in sent) == [1, ALARMS_AT_ONCE]
    assert {id_ for _, ids, _ in sent for id_ in ids} == set(map(str, schedules))
    assert timer.armed() == dict.fromkeys(schedules, False)


def test_an_alarm_that_rested_goes_off_again_when_it_is_set_anew(timer: RedBeatTimer, beat: Any) -> None:
    schedule = uuid4()
    timer.arm({schedule: now()})
    timer.flush(10)
    first = send_due(beat, until=1)
    timer.arm({schedule: now()})
    timer.flush(10)

    second = send_due(beat, until=1)

    assert len(first) == len(second) == 1


def test_an_alarm_never_goes_off_before_its_instant(timer: RedBeatTimer, beat: Any) -> None:
    at = now() + timedelta(seconds=1.5)
    timer.arm({uuid4(): at})
    timer.flush(10)

    sent = send_due(beat, until=1)

    assert len(sent) == 1
    assert now() >= at


def test_the_latest_word_about_a_schedule_counts(timer: RedBeatTimer) -> None:
    stays, goes = uuid4(), uuid4()

    timer.arm({stays: None, goes: now() + HOUR})
    timer.arm({stays: now() + HOUR, goes: None})

    assert timer.flush(10)
    assert timer.armed() == {stays: True}


@pytest.mark.fault
def test_a_wiped_redis_is_given_its_alarms_back(here: Timetable, timer: RedBeatTimer, own: Settings) -> None:
    rules = {"intervals": "1h"}
    fires = [here.schedules.create("default", a_body(rules=rules), actor="test").id for _ in range(3)]
    here.schedules.create("default", a_body(), actor="test")
    paused = here.schedules.create("default", a_body(rules=rules, paused=True), actor="test")
    timer.arm(here.timer.alarms)
    timer.flush(10)
    before = timer.armed()
    wipe(own)

    missing = rearm(here.leader, timer)
    timer.flush(10)

    assert before == timer.armed() == dict.fromkeys(fires, True)
    assert missing == 3
    assert rearm(here.leader, timer) == 0
    assert paused.next_fire_at is not None


def test_entries_of_schedules_that_do_not_fire_are_swept_out(here: Timetable, timer: RedBeatTimer) -> None:
    gone = here.schedules.create("default", a_body(rules={"intervals": "1h"}), actor="test")
    paused = here.schedules.create("default", a_body(rules={"intervals": "1h"}), actor="test")
    timer.arm(here.timer.alarms)
    timer.flush(10)
    here.schedules.delete("default", gone.id, versions=None)
    here.schedules.pause("default", paused.id, actor="test", runs=True)

    swept = rearm(here.leader, timer)
    timer.flush(10)

    assert swept == 2
    assert timer.armed() == {}


def test_the_task_that_an_entry_names_fires_the_schedule_and_sets_the_next_alarm(
    here: Timetable, timer: RedBeatTimer, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import housekeeping

    firing = Firing(here.sessions, here.bell, timer, queue_bound=100)
    monkeypatch.setattr(housekeeping, "_firing", lambda: firing)
    schedule = here.hourly(ago=timedelta(seconds=1))

    for _ in range(2):
        housekeeping.fire_schedule(str(schedule.id))

    timer.flush(10)
    assert here.fired(schedule) == [schedule.next_fire_at]
    assert timer.armed() == {schedule.id: True}
    assert here.bell.rings == ["small"]


def test_the_worker_that_fires_has_the_stores_of_its_settings(
    here: Timetable, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import housekeeping

    monkeypatch.setattr(housekeeping, "settings", lambda: own)
    housekeeping._firing.cache_clear()
    schedule = here.hourly(ago=timedelta(seconds=1))

    housekeeping.fire_schedule(str(schedule.id))

    housekeeping._firing.cache_clear()
    assert here.fired(schedule) == [schedule.next_fire_at]


@pytest.mark.fault
def test_without_redis_schedules_are_made_and_the_engine_fires_them(
    here: Timetable, own: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    away = RedBeatTimer(own.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    firing = Firing(here.sessions, here.bell, away, queue_bound=100)
    service = Schedules(here.sessions, here.templates, firing, away)
    schedule = service.create("default", a_body(rules={"intervals": "1h"}), actor="test")
    assert schedule.next_fire_at is not None
    here.put_back(schedule, schedule.next_fire_at - HOUR)

    fired = fire_overdue(here.leader, firing)

    assert fired == 1
    with pytest.raises(redis.RedisError):
        rearm(here.leader, away)
    assert away.flush(10)
    assert {record.message for record in caplog.records} == {"alarm.lost"}


@pytest.mark.fault
def test_an_engine_that_runs_fires_what_beat_has_missed_and_arms_it(
    here: Timetable, timer: RedBeatTimer, own: Settings
) -> None:
    here.leader.resign()
    schedule = here.hourly(ago=timedelta(minutes=30))
    engine = Engine(own)
    runs = Thread(target=engine.run)

    runs.start()
    give_up_at = monotonic() + 30
    while timer.armed() != {schedule.id: True} and monotonic() < give_up_at:
        sleep(0.05)
    engine.stop()
    runs.join(30)

    assert here.fired(schedule) == [schedule.next_fire_at]
    assert timer.armed() == {schedule.id: True}
