"""Engines that die or stop are replaced by the one that waits, and nothing is admitted or rescued twice."""

from __future__ import annotations

import signal
from time import sleep
from uuid import UUID

import pytest
from sqlalchemy import text

from app.persistence.leaders import application_name
from app.persistence.sessions import open_engine
from tests.faults.cluster import Cluster, eventually

HOLDER = UUID(int=1)
pytestmark = pytest.mark.fault


def _leader(cluster: Cluster) -> str:
    with cluster.sessions.begin() as session:
        return str(session.execute(text("SELECT holder FROM leaders WHERE until > clock_timestamp()")).scalar())


def test_a_killed_engine_is_replaced_by_the_one_that_waits(cluster: Cluster) -> None:
    first = cluster.start_engine("first")
    eventually(lambda: _leader(cluster) != "None", within_s=20, what="a leader")
    leader = _leader(cluster)
    cluster.start_engine("second")
    cluster.start_worker()
    ids = cluster.submit("effect", 60, steps=1, step_s=0.05)

    first.send(signal.SIGKILL)

    eventually(lambda: _leader(cluster) not in {leader, "None"}, within_s=15, what="another leader")
    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=1)


def test_a_stopped_engine_does_no_duty_after_another_took_over(cluster: Cluster) -> None:
    first = cluster.start_engine("first")
    eventually(lambda: _leader(cluster) != "None", within_s=20, what="a leader")
    leader = _leader(cluster)
    cluster.start_engine("second")
    cluster.start_worker()
    ids = cluster.submit("effect", 60, steps=1, step_s=0.05)

    first.send(signal.SIGSTOP)
    eventually(lambda: _leader(cluster) not in {leader, "None"}, within_s=15, what="another leader")
    first.send(signal.SIGCONT)
    sleep(1)

    assert _leader(cluster) != leader
    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=1)
    assert first.is_alive


@pytest.mark.feature("S4-13")
def test_an_engine_killed_between_admission_and_bell_costs_a_tick(cluster: Cluster) -> None:
    engine = cluster.start_engine("first")
    eventually(lambda: _leader(cluster) != "None", within_s=20, what="a leader")
    ids = cluster.submit("effect", 20, steps=1, step_s=0.05)
    eventually(lambda: cluster.count("jobs WHERE state = 'queued'") == len(ids), within_s=10, what="all queued")

    engine.send(signal.SIGKILL)
    cluster.start_engine("second")
    cluster.start_worker()

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=1)


def test_an_engine_stopped_inside_a_transaction_does_not_keep_the_lead(cluster: Cluster) -> None:
    with cluster.sessions.begin() as session:
        session.execute(
            text("INSERT INTO leaders VALUES ('engine', :id, 1, clock_timestamp() + interval '2 s')"), {"id": HOLDER}
        )
    stopped = open_engine(cluster.stores.database_url, application_name=application_name(HOLDER), pool_size=1)
    connection = stopped.connect()
    connection.execute(text("SELECT FROM leaders FOR SHARE"))

    cluster.start_engine()

    eventually(lambda: _leader(cluster) not in {str(HOLDER), "None"}, within_s=15, what="another leader")
    connection.invalidate()
    stopped.dispose()
