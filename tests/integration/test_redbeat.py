"""Alarms: one entry of RedBeat per schedule, set again when it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis

from app.engine.fire import fire_overdue, rearm
from app.persistence.sessions import Sessions
from app.scheduling.redbeat import RedBeatTimer
from app.services.firing import Firing
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
def beat(own: Settings) -> Iterator[RedBeatScheduler]:
    """Beat's scheduler, as it comes with RedBeat."""
    app = Celery("tests.beat", set_as_current=False)
    app.config_from_object(celery_config(own))
    yield RedBeatScheduler(app)
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


def test_beat_sends_an_alarm_that_is_due_once_and_then_lets_it_rest(timer: RedBeatTimer, beat: Any) -> None:
    due, later = uuid4(), uuid4()
    timer.arm({due: now() - timedelta(seconds=5), later: now() + HOUR})
    assert timer.flush(10)
    sent = []
    beat.send_task = beat.apply_async = lambda entry, **_: sent.append((entry.task, entry.args, entry.options, next(entry)))

    for _ in range(200):
        beat.app.loader.import_default_modules()
        beat_tick(beat)
        if sent:
            break
    beat_tick(beat)

    [(task, args, options, _)] = sent
    assert (task, args, options["queue"]) == ("haulier.fire_schedule", [str(due)], "small")
    assert timer.armed() == {due: False, later: True}
