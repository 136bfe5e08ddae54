"""The engine in this very process: what it does with and without its stores, and that one of several leads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.broker.bells import redis_client
from app.domain.lifecycle import JobState
from app.engine.admit import admit
from app.engine.fold import fold
from app.engine.leader import Leader, LeadLost
from app.engine.loop import Engine
from app.engine.rescue import rescue
from app.engine.ring import ring
from app.persistence import jobs, workers
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.runs import Runs
from config.settings import Settings
from tests.factories import RecordingBell, a_control, a_request, a_service, a_slot
from tests.integration.worker import within

NOWHERE = "redis://:x@127.0.0.1:9/0"


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Engine]]:
    """Runs engines until the test is over."""
    running: list[tuple[Engine, threading.Thread]] = []

    def start(**changes: object) -> Engine:
        changed = settings.model_copy(update={"engine_tick_s": 0.05, "lease_s": 1.0, "engine_term_s": 1.0, **changes})
        engine = Engine(changed)
        thread = threading.Thread(target=engine.run)
        thread.start()
        running.append((engine, thread))
        return engine

    yield start
    for engine, thread in running:
        engine.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def leader(sessions: Sessions) -> Leader:
    leader = Leader(sessions, uuid4(), term_s=60)
    assert leader.leads()
    return leader


@pytest.fixture
def bells(settings: Settings) -> Iterator[redis.Redis]:
    """Redis without a bell in it."""
    client = redis_client(settings)
    client.delete("small", "data")
    yield client
    client.delete("small", "data")
    client.close()


@pytest.mark.feature("S2-82")
def test_a_job_for_later_is_admitted_and_rung_when_it_is_due(
    run: Callable[..., Engine], sessions: Sessions, bells: redis.Redis
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'open', due_at = now() WHERE id = :id"), {"id": job.id})
    a_slot(sessions)

    run()

    assert within(10, lambda: service.get("default", job.id).state is JobState.QUEUED)
    assert within(10, lambda: bells.llen("small"))


def test_without_redis_jobs_are_admitted_all_the_same(
    run: Callable[..., Engine], sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    service = a_service(sessions, queue_bound=1)
    ids = [service.submit(a_request()).job.id for _ in range(3)]
    a_slot(sessions)

    run(redis_url=SecretStr(NOWHERE))

    assert within(10, lambda: {service.get("default", job_id).state for job_id in ids} == {JobState.QUEUED})
    assert within(10, lambda: "engine.duty_failed" in caplog.messages)


def test_an_engine_without_postgres_waits_and_stops_when_it_is_told_to(
    run: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        engine = run(database_url=SecretStr("postgresql://haulier:x@127.0.0.1:9/haulier"))
        failed = within(10, lambda: "engine.duty_failed" in caplog.messages)
        engine.stop()
        stopped = within(10, lambda: "engine.stopped" in caplog.messages)

    assert (failed, stopped) == (True, True)


@pytest.mark.feature("S4-118")
def test_jobs_of_a_slot_whose_lease_lapsed_go_back_one_lease_after_the_engines_start(
    run: Callable[..., Engine], sessions: Sessions
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request(priority=0)).job
    slot = a_slot(sessions)
    Runs(sessions).claim("small", slot, most=1, oldest=False)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))

    run()

    assert within(10, lambda: service.get("default", job.id).rescues == 1)
    assert service.get("default", job.id).attempts == 0


@pytest.mark.feature("S2-41")
def test_a_job_past_its_deadline_is_ended(run: Callable[..., Engine], sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request(timeout_s=0.05)).job

    run()

    assert within(10, lambda: service.get("default", job.id).cancel_reason == "timeout")


def test_an_engine_that_stops_lets_the_next_one_lead_at_once(sessions: Sessions) -> None:
    first, second = (Leader(sessions, uuid4(), term_s=600) for _ in range(2))

    led = (first.leads(), second.leads())
    first.resign()
    second = Leader(sessions, uuid4(), term_s=600)

    assert led == (True, False)
    assert second.leads()


def test_one_that_never_led_has_nothing_to_resign(sessions: Sessions, leader: Leader) -> None:
    Leader(sessions, uuid4(), term_s=60).resign()

    with leader.transaction() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_a_leader_whose_term_is_over_can_commit_nothing(sessions: Sessions, leader: Leader) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE leaders SET until = now() - interval '1 second'"))

    with pytest.raises(LeadLost):
        fold(leader)

    assert not leader.leads()


def test_a_leader_that_another_has_replaced_finds_out_at_its_next_renewal(sessions: Sessions) -> None:
    former = Leader(sessions, uuid4(), term_s=0.0)
    assert former.leads()
    with sessions.begin() as session:
        session.execute(
            text("UPDATE leaders SET holder = gen_random_uuid(), term = term + 1, until = now() + interval '1 hour'")
        )

    assert not former.leads()


def test_of_several_jobs_a_lost_slot_held_none_is_blamed(sessions: Sessions, leader: Leader) -> None:
    service = a_service(sessions)
    ids = [service.submit(a_request()).job.id for _ in range(3)]
    slot = a_slot(sessions)
    Runs(sessions).claim("small", slot, most=3, oldest=False)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))

    rescued = rescue(leader, max_rescues=0)

    assert rescued == 3
    assert {(job.state, job.rescues) for job in service.batch_get("default", ids) if job} == {(JobState.OPEN, 0)}


def test_a_lost_slots_job_that_was_to_be_cancelled_is_cancelled(sessions: Sessions, leader: Leader) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)
    a_control(sessions).cancel("default", job.id, actor="test")
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))

    rescue(leader, max_rescues=5)

    ended = service.get("default", job.id)
    assert (ended.state, ended.cancel_reason) == (JobState.CANCELLED, "user")


def test_a_slot_that_beats_again_before_it_is_judged_keeps_its_jobs(
    sessions: Sessions, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    slot = a_slot(sessions)
    Runs(sessions).claim("small", slot, most=1, oldest=False)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))

    def beats(session: Session, slot: UUID) -> None:
        session.execute(
            text("UPDATE workers SET lease_until = now() + interval '1 minute' WHERE id = :id"), {"id": slot}
        )

    monkeypatch.setattr("app.persistence.workers.terminate_backends", beats)

    rescued = rescue(leader, max_rescues=5)

    assert rescued == 0
    assert service.get("default", job.id).state is JobState.RUNNING


def test_a_worker_stopped_within_a_claim_holds_neither_its_slot_nor_the_job(
    settings: Settings, sessions: Sessions, leader: Leader
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    slot = a_slot(sessions)
    url = settings.database_url.get_secret_value()
    stopped = open_engine(url, application_name=workers.application_name(slot), pool_size=1)
    claiming = make_sessions(stopped)()
    jobs.claim(claiming, "small", slot)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))

    def rescued() -> bool:
        rescue(leader, max_rescues=5)
        with sessions.begin() as session:
            return not session.execute(text("SELECT FROM workers")).all()

    assert within(10, rescued)
    again = Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)
    with pytest.raises(DBAPIError):
        claiming.commit()
    assert [(one.id, one.fence) for one in again] == [(job.id, 1)]
    stopped.dispose()


def test_no_bell_is_rung_for_work_that_has_one_or_that_nobody_is_free_for(
    settings: Settings, sessions: Sessions, bells: redis.Redis
) -> None:
    service, bell = a_service(sessions), RecordingBell()
    for _ in range(3):
        service.submit(a_request())

    nobody = ring(sessions, bell, bells)
    a_slot(sessions)
    one_free = ring(sessions, bell, bells)
    bells.lpush("small", "a bell")
    already = ring(sessions, bell, bells)

    assert (nobody, one_free, already) == (0, 1, 0)
    assert bell.rings == ["small"]


def test_a_full_queue_takes_no_more(sessions: Sessions, leader: Leader) -> None:
    service = a_service(sessions, queue_bound=4)
    for _ in range(6):
        service.submit(a_request())

    admitted = [admit(leader, bound=4), admit(leader, bound=4)]

    assert admitted == [2, 0]
