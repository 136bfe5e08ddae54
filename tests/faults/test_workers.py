"""Workers that die, stop or starve lose no job and do nothing twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
import requests

from app.domain.lifecycle import JobState
from app.runtime.ports import free_port, release
from app.runtime.stores import Stores
from tests.faults.cluster import LEASE_S, Cluster, eventually

pytestmark = pytest.mark.fault


def test_a_worker_killed_inside_a_batch_loses_no_step(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker("first")
    ids = cluster.submit("effect", 6, steps=5, step_s=0.3)
    cluster.wait_for_steps(3)

    worker.send(signal.SIGKILL)
    cluster.start_worker("second")

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=5)


def test_a_pool_child_killed_inside_a_batch_is_replaced_before_its_lease_ends(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker()
    ids = cluster.submit("effect", 4, steps=5, step_s=0.3)
    cluster.wait_for_steps(2)

    os.kill(worker.children()[0], signal.SIGKILL)

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=5)
    assert worker.is_alive


def test_a_worker_stopped_inside_a_batch_for_longer_than_its_lease_commits_nothing_after(cluster: Cluster) -> None:
    cluster.start_engine()
    stopped = cluster.start_worker("stopped")
    ids = cluster.submit("effect", 2, steps=6, step_s=0.4)
    cluster.wait_for_steps(2)

    stopped.send(signal.SIGSTOP)
    cluster.start_worker("other")
    cluster.wait_for_all(ids, within_s=60)
    stopped.send(signal.SIGCONT)
    sleep(LEASE_S)

    cluster.assert_sound(ids, steps=6)
    more = cluster.submit("effect", 4, steps=2, step_s=0.1)
    cluster.wait_for_all(more)
    assert stopped.is_alive


def test_a_worker_starved_by_its_job_for_longer_than_its_lease_commits_nothing_after(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker()

    ids = cluster.submit("starve", seconds=2 * LEASE_S)

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=1)
    eventually(lambda: cluster.count("workers") == 2, within_s=2 * LEASE_S, what="the starved slot is back")
    assert [job.fence for job in cluster.jobs(ids)] == [2]
    assert worker.is_alive


def test_a_job_that_kills_its_worker_each_time_fails_and_others_complete(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker()
    poison = cluster.submit("poison")
    ids = cluster.submit("effect", 4, steps=2, step_s=0.1)

    cluster.wait_for_all([*ids, *poison], within_s=90)

    cluster.assert_sound(ids, steps=2)
    (job,) = cluster.jobs(poison)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "ERR_WORKER_LOST"
    cluster.assert_legal_trail(job)
    assert worker.is_alive


def test_a_job_out_of_memory_fails_and_its_worker_lives(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker()

    (job_id,) = cluster.submit("poison", how="memory")

    cluster.wait_for_all([job_id])
    (job,) = cluster.jobs([job_id])
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "resource.memory"
    assert worker.is_alive


def test_a_cancelled_job_that_does_not_listen_is_killed_after_the_grace_time(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker()
    (job_id,) = cluster.submit("poison", how="deaf")
    cluster.wait_for(JobState.RUNNING, [job_id])

    cluster.services.control.cancel("default", job_id, actor="test")

    cluster.wait_for_all([job_id])
    (job,) = cluster.jobs([job_id])
    assert job.state is JobState.CANCELLED
    cluster.assert_legal_trail(job)
    assert worker.is_alive
    ids = cluster.submit("effect", 2, steps=1, step_s=0.1)
    cluster.wait_for_all(ids)


@pytest.mark.feature("S4-07")
def test_a_terminated_worker_hands_its_jobs_back_uncounted(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker("first")
    ids = cluster.submit("effect", 2, steps=40, step_s=0.2)
    cluster.wait_for_steps(2)

    worker.send_main(signal.SIGTERM)

    assert worker.wait(30) == 0
    jobs = cluster.jobs(ids)
    assert {job.state for job in jobs} <= {JobState.OPEN, JobState.QUEUED}
    assert {(job.attempts, job.rescues) for job in jobs} == {(0, 0)}


def test_ten_duplicate_bells_start_a_job_once(cluster: Cluster) -> None:
    cluster.start_worker(slots=2)
    cluster.start_engine()
    ids = cluster.submit("effect", 3, steps=2, step_s=0.1)

    for _ in range(10):
        cluster.services.jobs._bell.ring("data", 3)

    cluster.wait_for_all(ids)
    cluster.assert_sound(ids, steps=2, max_rescues=0)
    eventually(lambda: all(job.fence == 1 for job in cluster.jobs(ids)), within_s=1, what="one claim a job")


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    yield number
    release([number])


@pytest.fixture
def served(fault_stores: Stores, tmp_path: Path, port: int) -> Iterator[Cluster]:
    """A cluster whose web has a port of its own."""
    cluster = Cluster(fault_stores, tmp_path, HAULIER_PORT=str(port))
    yield cluster
    cluster.close()


@pytest.mark.feature("S4-02")
def test_a_killed_web_stops_no_job(served: Cluster, port: int) -> None:
    served.start_engine()
    web = served.start_web()
    served.start_worker()
    eventually(lambda: _answers(port), within_s=60, what="the web answers", log=web.log)
    ids = served.submit("effect", 2, steps=6, step_s=0.2)
    served.wait_for_steps()

    web.send(signal.SIGKILL)

    served.wait_for_all(ids)
    served.assert_sound(ids, steps=6, max_rescues=0)
    assert not web.is_alive


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v1/health", timeout=5).ok
    except requests.ConnectionError:
        return False
