"""Cheap jobs are claimed together: what one of them does to the worker must not fall on the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from app.domain.lifecycle import Event, JobState
from app.runtime.stores import Stores
from tests.faults.cluster import Cluster, Part

pytestmark = pytest.mark.fault


@pytest.fixture
def cluster(fault_stores: Stores, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(fault_stores, tmp_path, HAULIER_MAX_RESCUES="1")
    yield cluster
    cluster.close()


def small_worker(cluster: Cluster, name: str = "small") -> Part:
    return cluster.start_worker(name, queue="small", pool="solo")


def test_a_member_that_kills_its_worker_fails_alone(cluster: Cluster) -> None:
    poison = cluster.submit("small_poison")
    ids = cluster.submit("echo", 20, value=1)
    cluster.start_engine()
    numbers = count()
    worker = small_worker(cluster, f"small{next(numbers)}")

    while not all(job.is_terminal for job in cluster.jobs([*poison, *ids])):
        if not worker.is_alive:
            worker = small_worker(cluster, f"small{next(numbers)}")
        cluster.pause()

    cluster.assert_sound(ids)
    assert {job.rescues for job in cluster.jobs(ids)} == {0}
    (job,) = cluster.jobs(poison)
    assert (job.state, (job.error or {}).get("code")) == (JobState.FAILED, "ERR_WORKER_LOST")
    cluster.assert_legal_trail(job)


def test_a_worker_killed_between_members_loses_none(cluster: Cluster) -> None:
    ids = cluster.submit("nap", 60, seconds=0.02)
    cluster.start_engine()
    worker = small_worker(cluster, "first")
    cluster.wait_for(JobState.COMPLETED, ids)

    worker.send(signal.SIGKILL)
    small_worker(cluster, "second")

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids)


def test_what_a_batch_has_no_time_for_goes_back_uncounted(cluster: Cluster) -> None:
    ids = cluster.submit("nap", 20, seconds=0.05)
    cluster.start_engine()
    small_worker(cluster)

    cluster.wait_for_all(ids)

    cluster.assert_sound(ids)
    assert {job.attempts for job in cluster.jobs(ids)} == {1}
    trails = [cluster.services.jobs.events("default", job_id, after=0, limit=100) for job_id in ids]
    assert any(event.type == Event.HAND_BACK for trail in trails for event in trail)
