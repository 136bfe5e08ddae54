"""Beats that are killed, stopped or two, and a Redis that is wiped: every instant fires, and none twice."""

from __future__ import annotations

import signal
from datetime import datetime, timedelta

import pytest
import redis
from sqlalchemy import text

from app.domain.calendars import MissedPolicy
from app.domain.schedules import Schedule
from tests.faults.cluster import Cluster, Part, eventually

pytestmark = pytest.mark.fault


def _every_second(cluster: Cluster) -> Schedule:
    body = {
        "name": "every second",
        "template": {"type": "echo", "config": {}},
        "rules": {"intervals": "1s"},
        "missed_policy": MissedPolicy.ALL,
        "missed_window_s": 3600.0,
    }
    return cluster.services.schedules.create("default", body, actor="test")


def _fired(cluster: Cluster, schedule: Schedule) -> list[datetime]:
    """The instants of which there are jobs, as often as there are."""
    asked = text(
        "SELECT f.fire_at FROM jobs AS j LEFT JOIN schedule_fires AS f ON f.job_id = j.id"
        " WHERE j.schedule_id = :id ORDER BY f.fire_at"
    )
    with cluster.sessions.begin() as session:
        return [row.fire_at for row in session.execute(asked, {"id": schedule.id})]


def _wait_for_fires(cluster: Cluster, schedule: Schedule, more: int, *parts: Part) -> None:
    wanted = len(_fired(cluster, schedule)) + more
    eventually(
        lambda: len(_fired(cluster, schedule)) >= wanted,
        within_s=60,
        what=f"{wanted} fires",
        log=lambda: "".join(part.log() for part in parts),
    )


def _assert_each_second_once(cluster: Cluster, schedule: Schedule) -> None:
    cluster.services.schedules.pause("default", schedule.id, actor="test", runs=False)
    fired = _fired(cluster, schedule)
    assert schedule.next_fire_at is not None
    assert fired == [schedule.next_fire_at + timedelta(seconds=place) for place in range(len(fired))]


def _assert_all_end(cluster: Cluster, schedule: Schedule) -> None:
    jobs = cluster.services.schedules.jobs_of("default", schedule.id, limit=1000)
    cluster.wait_for_all([job.id for job in jobs])
    cluster.assert_sound([job.id for job in jobs])


def test_two_beats_fire_each_instant_once(cluster: Cluster) -> None:
    # Without an engine, which would fire what they do not.
    cluster.start_worker("small", queue="small", pool="solo")
    beats = [cluster.start_beat("first"), cluster.start_beat("second")]
    schedule = _every_second(cluster)

    _wait_for_fires(cluster, schedule, 5, *beats)

    assert all(beat.is_alive for beat in beats)
    _assert_each_second_once(cluster, schedule)
    cluster.start_engine()  # admits what fires at the same moment left open
    _assert_all_end(cluster, schedule)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_beat_that_is_lost_and_a_wiped_redis_drop_and_double_no_fire(cluster: Cluster, fault: signal.Signals) -> None:
    engine = cluster.start_engine()
    cluster.start_worker("small", queue="small", pool="solo")
    first = cluster.start_beat("first")
    schedule = _every_second(cluster)
    _wait_for_fires(cluster, schedule, 2, first, engine)

    first.send(fault)
    _wait_for_fires(cluster, schedule, 2, engine)
    client = redis.Redis.from_url(cluster.stores.redis_url)
    client.flushall()
    client.close()
    second = cluster.start_beat("second")
    _wait_for_fires(cluster, schedule, 4, second, engine)

    _assert_each_second_once(cluster, schedule)
    _assert_all_end(cluster, schedule)
