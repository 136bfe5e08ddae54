"""A claimed batch of cheap jobs in this very process: what its members do to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app.domain.errors import JobError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.retry import RetryPolicy
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from config.settings import Settings
from tasks import members
from tasks.context import RunContext
from tasks.slot import Slot
from tests.factories import a_control
from tests.integration.worker import Action, Worker, run_claimed


class Bench(Worker):
    """One slot of a small worker, which claims many at once."""

    def __init__(self, sessions: Sessions, settings: Settings, objects: ObjectStore) -> None:
        super().__init__(sessions, settings, objects, cheap=True)

    def submit_all(self, *actions: Action, **options: Any) -> list[UUID]:
        return [self.submit(action, **options) for action in actions]

    @contextmanager
    def claimed_together(self, most: int = 50) -> Iterator[tuple[Slot, list[Job]]]:
        with self.heart.slot() as slot:
            yield slot, slot.runs.claim("small", slot.id, most=most, oldest=False)

    def run(self) -> None:
        with self.claimed_together() as (slot, claimed):
            run_claimed(self.task, slot, claimed)
            assert slot.holds == {}

    def states(self, ids: list[UUID]) -> list[JobState]:
        return [self.state(job_id) for job_id in ids]


@pytest.fixture
def bench(
    sessions: Sessions, settings: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """No batch is out of time, however slow the machine is."""
    monkeypatch.setattr(members, "KEEP_FOR_S", 60.0)
    bench = Bench(sessions, settings, objects)
    bench.heart.start()
    yield bench
    bench.heart.stop()


def nothing(_: RunContext) -> None:
    return None


def test_members_that_end_differently_each_end_as_they_did(bench: Bench) -> None:
    def fails(_: RunContext) -> None:
        raise JobError("no", code="test.no")

    def fails_for_now(_: RunContext) -> None:
        raise TransientError("not now")

    def crashes(_: RunContext) -> None:
        raise ZeroDivisionError

    def answers(_: RunContext) -> Result:
        return Result({"answer": 42})

    ids = bench.submit_all(nothing, fails, fails_for_now, crashes, answers)

    bench.run()

    assert bench.states(ids) == [
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.RETRY_WAIT,
        JobState.FAILED,
        JobState.COMPLETED,
    ]
    assert bench.service.get("default", ids[4]).result == {"answer": 42}


def test_a_transient_error_is_kept_as_it_is_said_whatever_caused_it(bench: Bench) -> None:
    def fails_for_now(_: RunContext) -> None:
        raise TransientError("S3 is away", code="s3.away") from OSError("socket 7 of 10.0.0.3")

    (job_id,) = bench.submit_all(fails_for_now)

    bench.run()

    error = bench.service.get("default", job_id).error or {}
    assert (error["code"], error["message"]) == ("s3.away", "S3 is away")


def test_a_policy_that_retries_everything_keeps_what_really_failed(bench: Bench) -> None:
    def crashes(_: RunContext) -> None:
        raise ZeroDivisionError("by zero")

    (job_id,) = bench.submit_all(crashes, retry=RetryPolicy(transient_only=False))

    bench.run()

    job = bench.service.get("default", job_id)
    assert job.state is JobState.RETRY_WAIT
    assert (job.error or {})["message"] == "ZeroDivisionError: by zero"


def test_a_member_cancelled_before_its_turn_never_begins(bench: Bench) -> None:
    begun = Flag()

    def cancels_the_last(_: RunContext) -> None:
        a_control(bench.sessions).cancel("default", ids[-1], actor="test")
        Flag().wait(0.02)

    def must_not_begin(_: RunContext) -> None:
        begun.set()

    ids = bench.submit_all(cancels_the_last, nothing, must_not_begin)

    bench.run()

    assert bench.states(ids[-1:]) == [JobState.CANCELLED]
    assert not begun.is_set()


def test_a_job_that_is_asked_to_end_is_not_handed_back(bench: Bench) -> None:
    (job_id,) = bench.submit_all(nothing)
    with bench.claimed_together() as (slot, claimed):
        a_control(bench.sessions).cancel("default", job_id, actor="test")

        slot.runs.hand_back_all(claimed, "no time")

    assert bench.states([job_id]) == [JobState.CANCELLED]


def test_an_end_is_written_while_the_next_member_still_runs(bench: Bench) -> None:
    seen = []

    def looks_at_the_first(_: RunContext) -> None:
        until = monotonic() + 10
        while bench.states(ids[:1]) == [JobState.RUNNING] and monotonic() < until:
            Flag().wait(0.01)
        seen.extend(bench.states(ids[:1]))

    ids = bench.submit_all(nothing, looks_at_the_first)

    bench.run()

    assert seen == [JobState.COMPLETED]


def test_what_had_no_time_goes_back_uncounted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "KEEP_FOR_S", 0.1)

    def takes_long(_: RunContext) -> None:
        Flag().wait(0.15)

    ids = bench.submit_all(takes_long, nothing, nothing)

    bench.run()

    assert bench.states(ids) == [JobState.COMPLETED, JobState.OPEN, JobState.OPEN]
    assert bench.service.get("default", ids[1]).attempts == 0


def test_a_member_whose_fence_moved_on_leaves_the_others_whole(
    bench: Bench, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "FLUSH_AFTER_S", 60.0)

    def loses_the_first(_: RunContext) -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": ids[0]})

    ids = bench.submit_all(nothing, loses_the_first, nothing)

    bench.run()

    assert bench.states(ids) == [JobState.RUNNING, JobState.COMPLETED, JobState.COMPLETED]


@pytest.mark.parametrize("data", [{"n": float("nan")}, {"set": {1}}, {"text": "\0"}], ids=["nan", "set", "nul"])
def test_a_result_that_cannot_be_kept_fails_its_job_alone(bench: Bench, data: dict[str, Any]) -> None:
    def answers(_: RunContext) -> Result:
        return Result(data)

    ids = bench.submit_all(answers, nothing)

    bench.run()

    assert bench.states(ids) == [JobState.FAILED, JobState.COMPLETED]
    assert (bench.service.get("default", ids[0]).error or {})["code"] == "job.result_invalid"


def _refuses(monkeypatch: pytest.MonkeyPatch, refused: Callable[[Sequence[Any]], bool]) -> None:
    """Let the statement that ends several jobs fail for those that ``refused`` says."""
    complete_all = Runs.complete_all

    def some(runs: Runs, ended: Sequence[Any]) -> list[Job]:
        if refused(ended):
            raise ProgrammingError("EXECUTE", {}, psycopg2.ProgrammingError("refused"))
        return complete_all(runs, ended)

    monkeypatch.setattr(Runs, "complete_all", some)


def test_ends_that_cannot_be_written_together_are_written_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuses(monkeypatch, lambda ended: len(ended) > 1)
    ids = bench.submit_all(nothing, nothing, nothing)

    bench.run()

    assert set(bench.states(ids)) == {JobState.COMPLETED}


def test_an_end_that_cannot_be_written_costs_no_other_and_is_left_to_the_heart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = bench.submit_all(nothing, nothing, nothing)
    _refuses(monkeypatch, lambda ended: any(job.id == ids[1] for job, _ in ended))

    bench.run()

    assert bench.states(ids) == [JobState.COMPLETED, JobState.RUNNING, JobState.COMPLETED]
    assert "job.end_lost" in caplog.messages


def test_a_full_load_of_ends_is_written_without_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "FLUSH_AT", 2)
    monkeypatch.setattr(members, "FLUSH_AFTER_S", 60.0)
    seen = []

    def looks_at_the_first(_: RunContext) -> None:
        seen.append(bench.service.get("default", ids[0]).state)

    ids = bench.submit_all(nothing, nothing, looks_at_the_first)

    bench.run()

    assert seen == [JobState.COMPLETED]


def test_a_job_that_was_held_when_a_worker_was_lost_is_claimed_by_itself(bench: Bench, sessions: Sessions) -> None:
    ids = bench.submit_all(nothing, nothing, nothing)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET alone = true WHERE id = :id"), {"id": ids[1]})

    sizes = []
    for _ in range(2):
        with bench.claimed_together() as (slot, claimed):
            sizes.append([ids.index(job.id) for job in claimed])
            run_claimed(bench.task, slot, claimed)

    assert sizes == [[0, 2], [1]]
