"""The heart of a worker process in this very process: what it hears at a beat, and what it does about it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.domain.errors import FenceLost, JobCancelled, JobPaused, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.resources import Resources
from app.persistence import workers
from app.persistence.sessions import Sessions
from app.persistence.workers import Held
from app.services.runs import Runs
from config.settings import Settings
from tasks import slot as slots
from tasks.context import HandBack, RunContext
from tests.factories import a_control
from tests.integration.worker import Worker, within

BEAT_S = 0.25


@pytest.fixture
def fast(settings: Settings) -> Settings:
    """A beat every quarter of a second, and no grace for who does not listen."""
    return settings.model_copy(update={"lease_s": 4 * BEAT_S, "kill_grace_s": 0.0})


@pytest.fixture
def worker(sessions: Sessions, fast: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, fast, objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that would have been sent."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(slots.os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


@pytest.fixture
def private_worker(
    kills: list[tuple[int, int]], sessions: Sessions, fast: Settings, objects: ObjectStore
) -> Iterator[Worker]:
    """A pool's child: its process is one job's own."""
    worker = Worker(sessions, fast, objects, may_kill=True)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def nothing(_: RunContext) -> None:
    return None


def change(worker: Worker, job_id: UUID, sets: str) -> None:
    with worker.sessions.begin() as session:
        session.execute(text(f"UPDATE jobs SET {sets} WHERE id = :id"), {"id": job_id})


def heard(context: RunContext) -> BaseException | None:
    """What the job was asked to stop for, within a few beats."""
    try:
        context.wait(20 * BEAT_S)
    except (JobCancelled, JobPaused, TransientError, FenceLost, HandBack) as why:
        return why
    return None


@pytest.mark.feature("S0-12", "S2-34")
@pytest.mark.parametrize(
    ("sets", "why", "said"),
    [
        ("cancel_requested = true", JobCancelled, "user"),
        ("deadline_at = now()", JobCancelled, "timeout"),
        ("paused = true", JobPaused, "paused on request"),
        (
            "attempt_timeout_s = 1, attempt_started_at = now() - interval '1 minute'",
            TransientError,
            "the attempt ran longer than its 1 s",
        ),
        ("progressed_at = now() - interval '1 hour'", TransientError, "no progress for 3600 s"),
        ("attempt_started_at = now() - interval '1 day'", TransientError, "the attempt ran longer than its 43200 s"),
    ],
)
def test_a_beat_tells_a_job_what_it_is_to_stop_for(
    worker: Worker, sets: str, why: type[BaseException], said: str
) -> None:
    job_id = worker.submit(nothing)

    with worker.claimed() as (_, context):
        change(worker, job_id, sets)
        stop = heard(context)

    assert type(stop) is why
    assert str(stop) == said


def test_a_job_that_nobody_asks_anything_of_goes_on(worker: Worker) -> None:
    worker.submit(nothing)

    with worker.claimed() as (_, context):
        stopped = within(3 * BEAT_S, lambda: context.cancelled)

    assert not stopped


def test_a_slot_that_was_given_up_tells_its_job_and_goes_on_as_another(worker: Worker, sessions: Sessions) -> None:
    worker.submit(nothing)
    with worker.claimed() as (slot, context):
        lost = slot.id
        with sessions.begin() as session:
            workers.forget(session, lost)

        stop = heard(context)

        slot.let_go(context.job)
    assert isinstance(stop, FenceLost)
    assert within(10, lambda: slot.id != lost)
    assert within(10, lambda: _is_registered(sessions, slot.id))


def _is_registered(sessions: Sessions, slot: UUID) -> bool:
    with sessions.begin() as session:
        return session.execute(text("SELECT count(*) FROM workers WHERE id = :id"), {"id": slot}).scalar_one() == 1


def test_a_process_that_drains_asks_all_of_its_jobs_at_once(worker: Worker) -> None:
    worker.submit(nothing)

    with worker.claimed() as (_, context):
        worker.heart.drain()

        with pytest.raises(HandBack):
            context.check()


def test_a_claim_whose_answer_was_lost_goes_back_after_two_beats(worker: Worker) -> None:
    job_id = worker.submit(nothing)

    with worker.heart.slot() as slot:
        slot.runs.claim("data", slot.id, most=1, oldest=False)
        came_back = within(10, lambda: worker.state(job_id) is JobState.OPEN)

    assert came_back
    assert worker.job(job_id).attempts == 0


def test_a_look_passes_on_a_wish_before_the_next_beat(
    sessions: Sessions, settings: Settings, objects: ObjectStore
) -> None:
    worker = Worker(sessions, settings, objects)
    worker.heart.start()
    job_id = worker.submit(nothing)
    with worker.claimed() as (slot, context):
        worker.heart.look(slot)
        before = context.cancelled
        a_control(worker.sessions).cancel("default", job_id, actor="test")

        worker.heart.look(slot)

        after = context.cancelled
    worker.heart.stop()
    assert (before, after) == (False, True)


def _away(*_: object, **__: object) -> None:
    raise OperationalError("SELECT", {}, Exception("the server is away"))


@pytest.mark.parametrize("statement", ["asked", "retire"])
def test_postgres_being_away_ends_neither_a_look_nor_a_stop(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    monkeypatch.setattr(workers, statement, _away)

    with worker.heart.slot() as slot, caplog.at_level(logging.WARNING):
        worker.heart.look(slot)
    worker.heart.stop()

    assert {"asked": "heart.missed", "retire": "slot.not_retired"}[statement] in caplog.messages


def test_a_slot_registers_and_beats_when_postgres_comes_back(
    sessions: Sessions,
    fast: Settings,
    objects: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(sessions, fast, objects)
    register, beat = workers.register, workers.beat
    monkeypatch.setattr(workers, "register", _first_away(register))
    monkeypatch.setattr(workers, "beat", _first_away(beat))
    job_id = worker.submit(nothing)

    worker.heart.start()
    with worker.claimed() as (_, context):
        change(worker, job_id, "cancel_requested = true")
        stop = heard(context)
    worker.heart.stop()

    assert isinstance(stop, JobCancelled)
    assert {"slot.not_registered", "heart.missed"} <= set(caplog.messages)


def _first_away(statement: Callable[..., object]) -> Callable[..., object]:
    calls: list[None] = []

    def run(*args: object, **named: object) -> object:
        calls.append(None)
        return _away() if len(calls) == 1 else statement(*args, **named)

    return run


@pytest.mark.parametrize(
    ("sets", "state"),
    [
        ("cancel_requested = true", JobState.CANCELLED),
        ("paused = true", JobState.OPEN),
        ("progressed_at = now() - interval '1 hour'", JobState.RETRY_WAIT),
    ],
    ids=["cancelled", "paused", "stalled"],
)
def test_a_job_that_does_not_listen_is_ended_in_the_database_and_its_process_killed(
    private_worker: Worker, kills: list[tuple[int, int]], sets: str, state: JobState
) -> None:
    job_id = private_worker.submit(nothing)
    with private_worker.claimed() as (slot, context):
        change(private_worker, job_id, sets)

        killed = within(10, lambda: kills)

        slot.let_go(context.job)
    assert killed
    assert kills[0] == (os.getpid(), signal.SIGKILL)
    assert private_worker.state(job_id) is state


def test_a_process_that_others_use_too_is_not_killed(kills: list[tuple[int, int]], worker: Worker) -> None:
    job_id = worker.submit(nothing)

    with worker.claimed() as (slot, context):
        change(worker, job_id, "cancel_requested = true")
        heard(context)
        within(3 * BEAT_S, lambda: kills)
        slot.let_go(context.job)

    assert kills == []


def test_what_a_stopped_process_still_holds_is_left_to_the_engine(worker: Worker, sessions: Sessions) -> None:
    job_id = worker.submit(nothing)
    with worker.claimed() as (slot, context):
        worker.heart.stop()

        held = _is_registered(sessions, slot.id)

    Runs(sessions).complete(context.job, Result())
    worker.heart.stop()
    assert held
    assert not _is_registered(sessions, slot.id)
    assert worker.state(job_id) is JobState.COMPLETED


@pytest.fixture
def patient_worker(
    kills: list[tuple[int, int]], sessions: Sessions, fast: Settings, objects: ObjectStore
) -> Iterator[Worker]:
    """A pool's child that gives its jobs ten minutes before it kills them."""
    worker = Worker(sessions, fast.model_copy(update={"kill_grace_s": 600.0}), objects, may_kill=True)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def test_a_draining_slot_asks_its_job_to_hand_back(patient_worker: Worker, sessions: Sessions) -> None:
    patient_worker.submit(nothing)
    with patient_worker.claimed() as (slot, context):
        with sessions.begin() as session:
            workers.drain(session, host=slots.HOST, pid=os.getpid())

        stop = heard(context)

        slot.let_go(context.job)
    assert isinstance(stop, HandBack)


@pytest.mark.feature("S3-18")
def test_a_terminated_job_is_killed_without_grace_and_unheard(
    patient_worker: Worker, kills: list[tuple[int, int]]
) -> None:
    job_id = patient_worker.submit(nothing)
    with patient_worker.claimed() as (slot, context):
        a_control(patient_worker.sessions).cancel("default", job_id, actor="test", terminate=True)

        killed = within(10, lambda: kills)

        slot.let_go(context.job)
    ended = patient_worker.service.events("default", job_id, after=0, limit=10)[-1]
    assert killed
    assert not context.cancelled
    assert (ended.target, ended.data) == (
        JobState.CANCELLED,
        {"reason": "user", "terminated": True, "rows_done": 0},
    )


def test_a_cancelled_job_is_given_its_grace(patient_worker: Worker, kills: list[tuple[int, int]]) -> None:
    job_id = patient_worker.submit(nothing)

    with patient_worker.claimed() as (slot, context):
        a_control(patient_worker.sessions).cancel("default", job_id, actor="test")
        stop = heard(context)
        slot.let_go(context.job)

    assert isinstance(stop, JobCancelled)
    assert kills == []


def test_a_job_that_ends_while_it_is_terminated_spares_its_process(
    patient_worker: Worker, kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    end_for = slots._end_for

    def too_late(runs: Runs, job: Job, why: Exception) -> None:
        runs.complete(job, Result())
        slot.let_go(job)
        end_for(runs, job, why)

    monkeypatch.setattr(slots, "_end_for", too_late)
    first, second = patient_worker.submit(nothing), patient_worker.submit(nothing)
    with patient_worker.claimed() as (slot, _):
        a_control(patient_worker.sessions).cancel("default", first, actor="test", terminate=True)
        ended = within(10, lambda: not slot.holds)

    with patient_worker.claimed() as (slot, context):
        a_control(patient_worker.sessions).cancel("default", second, actor="test")
        stop = heard(context)
        slot.let_go(context.job)
    assert ended
    assert kills == []
    assert patient_worker.state(first) is JobState.COMPLETED
    assert isinstance(stop, JobCancelled)


def test_a_terminated_job_whose_process_others_use_is_asked_to_stop(
    worker: Worker, kills: list[tuple[int, int]]
) -> None:
    job_id = worker.submit(nothing)

    with worker.claimed() as (_, context):
        a_control(worker.sessions).cancel("default", job_id, actor="test", terminate=True)
        stop = heard(context)

    assert isinstance(stop, JobCancelled)
    assert stop.terminated
    assert kills == []


def test_a_child_that_is_cancelled_with_its_parent_ends_for_that_reason(worker: Worker) -> None:
    job_id = worker.submit(nothing)

    with worker.claimed() as (_, context):
        change(worker, job_id, "cancel_requested = true, cancel_reason = 'parent'")
        stop = heard(context)

    assert str(stop) == "parent"


def test_a_job_that_has_more_memory_than_it_asked_for_is_killed_and_fails(
    patient_worker: Worker, kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = patient_worker.submit(nothing, resources=Resources(memory_mb=100))
    with patient_worker.claimed() as (slot, context), context.memory_limited():
        monkeypatch.setattr("tasks.context.resident_mb", lambda: 10_000.0)

        killed = within(10, lambda: kills)

        slot.let_go(context.job)
    assert killed
    assert (patient_worker.job(job_id).error or {})["code"] == "resource.memory"


@pytest.mark.feature("S4-72")
def test_a_job_that_does_not_listen_goes_back_when_its_worker_leaves(
    worker: Worker, kills: list[tuple[int, int]], sessions: Sessions
) -> None:
    job_id = worker.submit(nothing)
    with worker.claimed() as (slot, context):
        with sessions.begin() as session:
            workers.drain(session, host=slots.HOST, pid=os.getpid())

        left = within(10, lambda: kills)

        slot.let_go(context.job)
    assert left
    assert (worker.state(job_id), worker.job(job_id).attempts) == (JobState.OPEN, 0)


def test_a_process_that_is_stopped_in_its_beat_leaves_its_slots_to_the_rescue(
    worker: Worker, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = workers.beat
    lapsed: list[UUID] = []

    def stopped_after(session: Session, slot_ids: Sequence[UUID], *, lease_s: float) -> tuple[set[UUID], list[Held]]:
        found = beat(session, slot_ids, lease_s=-1)
        with sessions.begin() as engine:
            lapsed.extend(slot for slot in workers.lapsed(engine) if workers.is_lapsed(engine, slot))
        return found

    monkeypatch.setattr(workers, "beat", stopped_after)

    assert within(5, lambda: lapsed)
