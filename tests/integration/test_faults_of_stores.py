"""Stores that answer too late, are full, or are asked by a clock that is wrong."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.broker.bells import CeleryBell
from app.domain.errors import TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job, Priority
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef, ObjectStore
from app.engine.leader import Leader
from app.engine.rescue import rescue
from app.engine.ring import ring
from app.persistence import admission, jobs
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.runtime.stores import Stores
from app.services.runs import Runs, is_connection_lost
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.factories import a_request, a_service, a_slot
from tests.faulty_tcp import FaultyTcp
from tests.integration.worker import Worker, within


def a_running_job(sessions: Sessions) -> Job:
    a_service(sessions).submit(a_request())
    [job] = Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)
    return job


def the_events(sessions: Sessions, job: Job) -> list[str]:
    return [event.type for event in a_service(sessions).events("default", job.id, after=0, limit=100)]


# A commit whose answer was lost


@pytest.fixture
def line(settings: Settings) -> Iterator[FaultyTcp]:
    """A line to Postgres that can be cut."""
    line = FaultyTcp(settings.database_url.get_secret_value())
    yield line
    line.close()


@pytest.fixture
def far(line: FaultyTcp) -> Iterator[Sessions]:
    """Sessions over that line."""
    engine = open_engine(line.url, application_name="tests", pool_size=4)
    yield make_sessions(engine)
    engine.dispose()


def test_an_end_whose_answer_was_lost_is_written_once(line: FaultyTcp, far: Sessions, sessions: Sessions) -> None:
    job = a_running_job(sessions)
    line.cut_after = b"job.completed"

    Runs(far).complete(job, Result(data={"value": 1}))

    assert line.cuts == 1
    assert the_events(sessions, job)[-2:] == ["job.started", "job.completed"]


def test_a_batch_whose_commit_was_not_answered_is_seen_by_the_next_run(
    line: FaultyTcp, far: Sessions, sessions: Sessions
) -> None:
    job = a_running_job(sessions)
    line.cut_after = b"COMMIT"

    with pytest.raises(DBAPIError) as lost, far.begin() as session:
        jobs.advance(session, job, rows=1, checkpoint={"step": 1})

    assert is_connection_lost(lost.value)
    Runs(far).rescue(job, "the connection to Postgres was lost", max_rescues=5)
    left = a_service(sessions).get("default", job.id)
    assert (left.state, left.checkpoint, left.progress.rows_done) == (JobState.OPEN, {"step": 1}, 1)


@pytest.mark.feature("S4-62")
def test_a_submit_whose_answer_was_lost_is_the_same_job_when_it_is_sent_again(
    line: FaultyTcp, far: Sessions, sessions: Sessions
) -> None:
    line.cut_after = b"COMMIT"

    with pytest.raises(DBAPIError):
        a_service(far).submit(a_request(), idempotency_key="once")
    again = a_service(far).submit(a_request(), idempotency_key="once")

    assert (line.cuts, again.replayed) == (1, True)


# Stores that are full


@pytest.fixture
def full_redis(settings: Settings) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    client.delete("small")
    client.config_set("maxmemory", 1)
    yield client
    client.config_set("maxmemory", 0)
    client.delete("small")
    client.close()


def test_a_full_redis_refuses_bells_and_costs_no_job(
    settings: Settings, sessions: Sessions, full_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    bell = CeleryBell(settings)
    service = a_service(sessions)
    service._bell = bell
    a_slot(sessions)

    job = service.submit(a_request()).job
    refused = within(10, lambda: "bell.lost" in caplog.messages)
    full_redis.config_set("maxmemory", 0)
    rung = ring(sessions, bell, full_redis)

    assert (job.state, refused, rung) == (JobState.QUEUED, True, 1)
    assert within(10, lambda: full_redis.llen("small") == 1)
    bell.close()


@pytest.fixture
def full_s3(stores: Stores) -> Iterator[None]:
    """The S3 server may write no file, as on a full disk."""
    pid = stores.objects.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.usefixtures("full_s3")
def test_an_s3_that_cannot_write_is_worth_another_attempt_and_shows_no_file(
    settings: Settings, objects: ObjectStore
) -> None:
    store = S3Store(settings, attempts=1)
    ref = ObjectRef(settings.s3_bucket, f"uploads/{uuid4()}.csv")

    with pytest.raises(TransientError):
        store.put(ref, b"x" * 1_000_000, content_type="text/csv")

    assert list(objects.list(ref.bucket, ref.key)) == []


# A clock that is wrong


@pytest.mark.parametrize("wrong_by", [-timedelta(hours=1), timedelta(hours=1)], ids=["back", "ahead"])
def test_a_worker_whose_clock_is_an_hour_off_keeps_its_lease_and_ends_its_job(
    sessions: Sessions, settings: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
) -> None:
    real, now = time.time, datetime.now
    monkeypatch.setattr(time, "time", lambda: real() + wrong_by.total_seconds())
    monkeypatch.setattr("app.domain.clock.SystemClock.now", lambda _: now(UTC) + wrong_by)
    worker = Worker(sessions, settings.model_copy(update={"lease_s": 1.0}), objects)
    job_id = worker.submit(lambda _: Result(data={"value": 1}))
    leader = Leader(sessions, uuid4(), term_s=60)
    worker.heart.start()

    with worker.claimed() as (slot, context):
        held_for_a_lease = within(10, lambda: _beats(sessions) > 4)
        rescued = leader.leads() and rescue(leader, max_rescues=5)
        worker.task.run_job(slot, context)
    worker.heart.stop()

    assert held_for_a_lease
    assert rescued == 0
    assert worker.state(job_id) is JobState.COMPLETED


def _beats(sessions: Sessions) -> float:
    """Quarters of a second by which the lease has moved on since the slot began."""
    with sessions.begin() as session:
        moved = text("SELECT 4 * extract(epoch FROM lease_until - started_at - interval '1 second') FROM workers")
        return float(session.execute(moved).scalar_one())


# More jobs than a queue takes


@pytest.mark.feature("S4-06", "S4-15")
def test_of_20_000_jobs_a_queue_takes_no_more_than_its_bound_and_rings_for_its_free_slots(
    sessions: Sessions, settings: Settings
) -> None:
    service = a_service(sessions, queue_bound=100)
    job = service.submit(a_request()).job
    with sessions.begin() as session:
        columns = session.execute(
            text("SELECT string_agg(column_name, ', ') FROM information_schema.columns WHERE table_name = 'jobs'"
                 " AND column_name NOT IN ('id', 'number', 'state', 'admitted_at')")
        ).scalar_one()  # fmt: skip
        session.execute(
            text(f"INSERT INTO jobs (id, state, {columns}) SELECT gen_random_uuid(), 'open', {columns}"
                 " FROM jobs, generate_series(1, 20000) WHERE id = :id"), {"id": job.id},
        )  # fmt: skip
    slot = a_slot(sessions)
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    client.delete("small")
    bell = service._bell

    with sessions.begin() as session:
        admitted = admission.admit(session, "small", Priority.NORMAL, bound=100)
    rung = ring(sessions, bell, client)
    claimed = Runs(sessions).claim("small", slot, most=50, oldest=False)

    assert (admitted, rung) == (99, 1)
    assert len({job.id for job in claimed}) == 50
    client.close()
