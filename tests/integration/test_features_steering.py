"""What the feature list says of queues and workers: who goes first, how much waits, and that nothing runs twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from threading import Barrier, Thread
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.bootstrap import build_services
from app.domain.job_types import Result
from app.domain.jobs import Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.engine.admit import admit
from app.engine.leader import Leader
from app.engine.loop import Engine
from app.factory import create_app
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from config.settings import Settings, from_env
from tasks.context import RunContext
from tests.factories import a_request, a_service, a_slot, in_threads
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt, within


@pytest.mark.feature("S2-36")
def test_a_high_job_starts_before_fifty_low_ones_that_were_queued_before_it(sessions: Sessions) -> None:
    service = a_service(sessions, queue_bound=200)
    for _ in range(50):
        service.submit(a_request(priority=Priority.LOW))
    high = service.submit(a_request(priority=Priority.HIGH)).job

    [first] = Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)

    assert first.id == high.id


@pytest.mark.feature("S0-16")
def test_heavy_jobs_that_fill_their_pool_keep_no_light_one_waiting(sessions: Sessions) -> None:
    service, runs = a_service(sessions), Runs(sessions)
    heavy_slot, light_slot = a_slot(sessions, "data"), a_slot(sessions, "small")
    for _ in range(20):
        service.submit(a_request(type="sleep"))
    runs.claim("data", heavy_slot, most=1, oldest=False)
    light = service.submit(a_request()).job

    claimed = runs.claim("small", light_slot, most=50, oldest=False)

    assert (light.queue, [job.id for job in claimed]) == ("small", [light.id])
    assert runs.claim("data", heavy_slot, most=1, oldest=False) == []


@pytest.mark.feature("S4-01")
def test_two_workers_share_a_hundred_jobs_and_none_runs_twice(sessions: Sessions) -> None:
    service, runs = a_service(sessions, queue_bound=200), Runs(sessions)
    ids = {service.submit(a_request()).job.id for _ in range(100)}
    slots = [a_slot(sessions) for _ in range(2)]
    both_have_some = Barrier(2, timeout=30)

    def work_off() -> list[UUID]:
        slot, done = slots.pop(), []
        while claimed := runs.claim("small", slot, most=5, oldest=False):
            if not done:
                both_have_some.wait()
            for job in claimed:
                runs.complete(job, Result())
                done.append(job.id)
        return done

    one, other = in_threads(2, work_off)

    assert sorted(one + other) == sorted(ids)


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


@pytest.mark.feature("S2-100")
def test_what_costs_much_is_done_once_for_a_key_of_each_tenant(worker: Worker) -> None:
    calls = []

    def looks_up(job: RunContext) -> None:
        if job.cache.get("example.com") is None:
            calls.append(job.job.tenant)
            job.cache.set("example.com", {"employees": 5}, ttl_s=60)

    config = worker.config(looks_up)
    for tenant in ("default", "default", "acme"):
        worker.service.submit(SubmitJob(tenant=tenant, type="do", config=config, created_by="test"))

    for _ in range(3):
        attempt(worker)

    assert calls == ["default", "acme"]


@pytest.mark.feature("S4-78")
def test_the_queue_size_of_the_environment_is_the_threshold(settings: Settings, member: Client) -> None:
    by_default = from_env({}, env_file=None).job_in_queue_size
    size = from_env({"JOB_IN_QUEUE_SIZE": "6"}, env_file=None).job_in_queue_size
    changed = settings.model_copy(update={"job_in_queue_size": size})
    services = build_services(changed, application_name="tests queue", pool_size=2)
    client = Client(create_app(changed, services), member.key)
    for _ in range(10):
        client.post("/v1/jobs", {"type": "echo"})
    leader = Leader(services.sessions, uuid4(), term_s=60)
    leader.leads()

    admit(leader, bound=changed.job_in_queue_size)

    states = Counter(job["state"] for job in client.get("/v1/jobs").get_json()["items"])
    services.sessions.kw["bind"].dispose()
    assert (by_default, states) == (100, {"queued": 6, "open": 4})


@pytest.mark.feature("S4-71")
def test_the_ticker_finds_a_job_that_no_bell_was_rung_for(settings: Settings, sessions: Sessions) -> None:
    told = from_env({"TICKER_INTERVAL_MINUTES": "0.001"}, env_file=None).ticker_interval_minutes
    engine = Engine(settings.model_copy(update={"engine_tick_s": 600.0, "ticker_interval_minutes": told}))
    runs = Thread(target=engine.run)
    service = a_service(sessions, queue_bound=1)
    runs.start()
    leads = within(10, lambda: _leaders(sessions))

    jobs = [service.submit(a_request()).job for _ in range(2)]
    found = within(10, lambda: service.get("default", jobs[1].id).state is JobState.QUEUED)

    engine.stop()
    runs.join(20)
    assert (leads, jobs[1].state, found) == (True, JobState.OPEN, True)
    assert from_env({}, env_file=None).ticker_interval_minutes == 5


def _leaders(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return int(session.execute(text("SELECT count(*) FROM leaders")).scalar_one())
