"""Redis and Postgres that lose data, restart, hang or go away cost time and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic, sleep
from uuid import UUID

import pytest
import redis
from celery import Celery
from sqlalchemy.exc import DBAPIError

from app.runtime.stores import Stores
from tests.faults.cluster import LEASE_S, Cluster, Part, eventually
from tests.faulty_tcp import FaultyTcp

pytestmark = pytest.mark.fault


def _running(cluster: Cluster, steps: int = 4, step_s: float = 0.3) -> tuple[list[UUID], list[Part]]:
    parts = [cluster.start_engine(), cluster.start_worker()]
    ids = cluster.submit("effect", 6, steps=steps, step_s=step_s)
    cluster.wait_for_steps(2)
    return ids, parts


@pytest.mark.feature("S4-13", "S4-17")
def test_after_flushall_every_job_still_runs_once(cluster: Cluster) -> None:
    ids, parts = _running(cluster)

    redis.Redis.from_url(cluster.stores.redis_url).flushall()
    ids += cluster.submit("effect", 4, steps=4, step_s=0.1)

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=4, max_rescues=0)
    assert all(part.is_alive for part in parts)


def test_a_killed_and_restarted_redis_costs_no_job_and_no_process(cluster: Cluster) -> None:
    ids, parts = _running(cluster)

    cluster.stores.valkey.kill()
    ids += cluster.submit("effect", 4, steps=4, step_s=0.1)
    sleep(2)
    cluster.stores.valkey.start()

    cluster.wait_for_all(ids, within_s=90)
    cluster.assert_sound(ids, steps=4, max_rescues=0)
    assert all(part.is_alive for part in parts)


def test_a_redis_that_hangs_for_8_s_holds_no_submit_and_costs_no_process(cluster: Cluster) -> None:
    ids, parts = _running(cluster)

    os.kill(cluster.stores.valkey.pid, signal.SIGSTOP)
    started = monotonic()
    ids += cluster.submit("effect", 4, steps=4, step_s=0.1)
    took_s = monotonic() - started
    sleep(8 - took_s)
    os.kill(cluster.stores.valkey.pid, signal.SIGCONT)

    assert took_s < 4, "a hung Redis must not hold a submit"
    cluster.wait_for_all(ids, within_s=90)
    cluster.assert_sound(ids, steps=4, max_rescues=0)
    assert all(part.is_alive for part in parts)


def test_connections_to_redis_that_fall_silent_are_made_anew(fault_stores: Stores, tmp_path: Path) -> None:
    line = FaultyTcp(fault_stores.redis_url)
    cluster = Cluster(fault_stores, tmp_path, HAULIER_REDIS_URL=line.url)
    parts = [cluster.start_engine(), cluster.start_worker(queue="small", pool="solo")]
    first = cluster.submit("echo", value=1)
    cluster.wait_for_all(first)

    line.fall_silent()
    ids = cluster.submit("echo", 3, value=1)

    cluster.wait_for_all(ids, within_s=90)
    cluster.assert_sound([*first, *ids], max_rescues=0)
    assert all(part.is_alive for part in parts)
    cluster.close()
    line.close()


def test_an_immediate_restart_of_postgres_loses_no_step(cluster: Cluster) -> None:
    ids, parts = _running(cluster)

    cluster.stores.postgres.stop_immediately()
    cluster.stores.postgres.start()

    cluster.wait_for_all(ids, within_s=90)
    cluster.assert_sound(ids, steps=4)
    assert all(part.is_alive for part in parts)


def test_an_outage_of_postgres_longer_than_the_lease_rescues_nobody_falsely(cluster: Cluster) -> None:
    parts = [cluster.start_engine(), cluster.start_worker()]
    ids = cluster.submit("sleep", 2, seconds=15.0)
    eventually(lambda: cluster.count("jobs WHERE state = 'running'") == 2, within_s=20, what="both run")
    sleep(0.5)

    cluster.stores.postgres.stop_immediately()
    with pytest.raises(DBAPIError):
        cluster.submit("effect")
    sleep(10)
    cluster.stores.postgres.start()

    cluster.wait_for_all(ids, within_s=90)
    cluster.assert_sound(ids, max_rescues=1)
    for job in cluster.jobs(ids):
        trail = cluster.services.jobs.events("default", job.id, after=0, limit=100)
        assert not [event for event in trail if event.actor == "engine" and event.type == "job.rescued"]
    assert all(part.is_alive for part in parts)
    assert LEASE_S < 10


def test_terminated_database_sessions_are_replaced(cluster: Cluster) -> None:
    ids, parts = _running(cluster)

    cluster.count("(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                  " AND usename = current_user AND application_name LIKE 'haulier%') AS t")  # fmt: skip

    cluster.wait_for_all(ids, within_s=60)
    cluster.assert_sound(ids, steps=4)
    assert all(part.is_alive for part in parts)


def test_messages_that_are_none_of_ours_are_refused_and_the_worker_lives(cluster: Cluster) -> None:
    worker = cluster.start_worker()
    cluster.start_engine()
    sender = Celery("attacker", broker=cluster.stores.redis_url, set_as_current=False)
    sender.conf.update(task_serializer="pickle", accept_content=["pickle"])

    sender.send_task("haulier.work", args=["data"], queue="data", serializer="pickle")
    sender.send_task("haulier.no_such_task", args=[{"a": 1}], queue="data", serializer="json")
    redis.Redis.from_url(cluster.stores.redis_url).lpush(
        "data",
        "no JSON",
        b"\xff\xfe",
        "1",
        "{}",
        '{"properties": {}}',
        '{"body": "x", "properties": {"delivery_tag": 1}}',
    )

    ids = cluster.submit("effect", steps=1)
    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=1, max_rescues=0)
    assert worker.is_alive
    assert "ContentDisallowed" in worker.log()
    assert worker.log().count("bell.unreadable") >= 4
