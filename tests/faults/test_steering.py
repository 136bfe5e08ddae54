"""Workers that are told to kill, hold back, grow, shrink and leave."""

from __future__ import annotations

import signal
from typing import Any
from uuid import UUID

import pytest
import redis

from app.domain.jobs import Job, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.resources import Resources
from tests.faults.cluster import Cluster, eventually

pytestmark = pytest.mark.fault


def submit(cluster: Cluster, job_type: str, config: dict[str, Any], **options: Any) -> UUID:
    request = SubmitJob(tenant="default", type=job_type, config=config, created_by="test", **options)
    return cluster.services.jobs.submit(request).job.id


def the_job(cluster: Cluster, job_id: UUID) -> Job:
    return cluster.services.jobs.get("default", job_id)


@pytest.mark.feature("S3-18")
def test_a_terminated_job_that_does_not_listen_is_killed_without_grace_and_its_worker_lives(
    patient: Cluster,
) -> None:
    patient.start_engine()
    worker = patient.start_worker(slots=2)
    deaf, untouched = patient.submit("poison", how="deaf"), patient.submit("effect", steps=10, step_s=0.2)
    patient.wait_for(JobState.RUNNING, [*deaf, *untouched], at_least=2)

    told = patient.services.control.terminate("default", deaf[0], actor="test")

    patient.wait_for_all(deaf, within_s=10)
    patient.wait_for_all(untouched)
    job = the_job(patient, deaf[0])
    assert told.fate == "killed"
    assert (job.state, job.cancel_reason) == (JobState.CANCELLED, "user")
    patient.assert_legal_trail(job)
    patient.assert_sound(untouched, steps=10, max_rescues=0)
    assert worker.is_alive


@pytest.mark.feature("S2-39")
def test_a_job_over_its_memory_fails_in_words_and_its_process_goes_on(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker(slots=1)
    [child] = worker.children()

    over = submit(cluster, "hog", {"memory_mb": 300}, resources=Resources(memory_mb=100))
    within = submit(cluster, "hog", {"memory_mb": 50}, resources=Resources(memory_mb=100))

    cluster.wait_for_all([over, within])
    error = the_job(cluster, over).error or {}
    assert error["code"] == "resource.memory"
    assert error["message"] == "the job needed more than the 100 MB of memory it asked for"
    assert the_job(cluster, within).state is JobState.COMPLETED
    assert worker.children() == [child]


@pytest.mark.feature("S2-40")
def test_reserved_processors_of_running_jobs_never_exceed_those_of_their_worker(cluster: Cluster) -> None:
    cluster.start_engine()
    cluster.start_worker(slots=2)
    wide = [submit(cluster, "hog", {"memory_mb": 1, "seconds": 0.4}, resources=Resources(cpu_m=2000)) for _ in range(3)]

    peaks = set()

    def over() -> bool:
        peaks.add(cluster.states(wide)[JobState.RUNNING])
        return all(job.is_terminal for job in cluster.jobs(wide))

    eventually(over, within_s=60, what="the end of all")
    assert peaks <= {0, 1}


@pytest.mark.feature("S4-07", "S4-72")
def test_a_worker_that_is_told_to_leave_is_gone_though_a_job_does_not_listen(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker(slots=2)
    deaf = cluster.submit("poison", how="deaf")
    cluster.wait_for(JobState.RUNNING, deaf)

    worker.send_main(signal.SIGTERM)

    worker.wait(30)
    job = the_job(cluster, deaf[0])
    assert job.state in {JobState.OPEN, JobState.QUEUED}
    assert (job.attempts, job.rescues) == (0, 0)


def test_a_second_signal_ends_a_worker_at_once_and_its_jobs_come_back(patient: Cluster) -> None:
    patient.start_engine()
    worker = patient.start_worker("first", slots=2)
    ids = [*patient.submit("poison", how="deaf")]
    patient.wait_for(JobState.RUNNING, ids)
    children = worker.children()
    worker.send_main(signal.SIGTERM)
    # The idle process may be gone by the time anybody looks.
    eventually(lambda: patient.count("workers WHERE draining") > 0, within_s=10, what="the drain begins")

    worker.send_main(signal.SIGTERM)

    assert worker.wait(5) == 128 + signal.SIGTERM
    assert len(children) == 2
    eventually(lambda: the_job(patient, ids[0]).state is JobState.QUEUED, within_s=20, what="it comes back")
    assert the_job(patient, ids[0]).attempts == 0


@pytest.mark.feature("S4-133")
def test_a_pool_grows_and_shrinks_to_what_was_asked_for_though_redis_forgets(cluster: Cluster) -> None:
    cluster.start_engine()
    worker = cluster.start_worker(slots=1)

    cluster.services.steering.set_slots("default", "data", 3, actor="test")
    eventually(lambda: len(worker.children()) == 3, within_s=30, what="three processes", log=worker.log)
    eventually(lambda: cluster.count("workers") == 3, within_s=30, what="three slots", log=worker.log)
    ids = cluster.submit("effect", 3, steps=16, step_s=0.2)
    cluster.wait_for(JobState.RUNNING, ids, at_least=3)
    redis.Redis.from_url(cluster.stores.redis_url).flushall()
    cluster.services.steering.set_slots("default", "data", 1, actor="test")

    cluster.wait_for_all(ids)
    eventually(lambda: len(worker.children()) == 1, within_s=30, what="one process", log=worker.log)
    cluster.assert_sound(ids, steps=16, max_rescues=0)


@pytest.mark.feature("S3-12", "S3-13")
def test_nothing_of_a_paused_queue_starts_and_what_runs_goes_on(cluster: Cluster) -> None:
    cluster.start_engine()
    cluster.start_worker(slots=1)
    ids = cluster.submit("effect", 3, steps=4, step_s=0.2)
    cluster.wait_for(JobState.RUNNING, ids)

    cluster.services.steering.pause("default", "data", paused=True, actor="test")

    cluster.wait_for(JobState.COMPLETED, ids)
    paused = cluster.states(ids)
    cluster.services.steering.pause("default", "data", paused=False, actor="test")
    cluster.wait_for_all(ids)
    assert paused == {JobState.COMPLETED: 1, JobState.QUEUED: 2}
    cluster.assert_sound(ids, steps=4)
