"""One attempt at a job in this very process: what a job type raises, and what becomes of the job."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import psycopg2
import pytest
from celery.exceptions import Retry
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.domain.durations import LONGEST_S
from app.domain.errors import FenceLost, JobCancelled, JobError, JobPaused, TransientError
from app.domain.job_types import Result
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy, fixed_interval
from app.persistence.sessions import Sessions
from config.settings import Settings
from tasks import base
from tasks.base import JobFailed
from tasks.context import HandBack, RunContext
from tests.factories import a_control
from tests.integration.worker import Worker


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def raising(error: BaseException) -> Callable[[RunContext], Result]:
    def run(_: RunContext) -> Result:
        raise error

    return run


def attempt(worker: Worker) -> None:
    """As Celery runs it: autoretry calls ``retry`` for what is transient."""
    with worker.claimed() as (slot, context):
        try:
            worker.task.run_job(slot, context)
        except TransientError as error:
            worker.task.retry(exc=error)
        finally:
            assert slot.holds == {}


@pytest.mark.parametrize(
    ("stop", "state", "attempts"),
    [
        (JobCancelled("user"), JobState.CANCELLED, 1),
        (JobPaused("too many bad rows"), JobState.OPEN, 0),
        (HandBack(), JobState.OPEN, 0),
    ],
    ids=["cancelled", "paused", "handed back"],
)
def test_a_job_that_was_asked_to_stop_ends_as_it_was_asked(
    worker: Worker, stop: Exception, state: JobState, attempts: int
) -> None:
    job_id = worker.submit(raising(stop))

    attempt(worker)

    assert (worker.state(job_id), worker.job(job_id).attempts) == (state, attempts)


@pytest.mark.parametrize("kind", [ValueError, TransientError, JobError])
@pytest.mark.parametrize(
    ("stop", "state", "attempts"),
    [
        (JobCancelled("user"), JobState.CANCELLED, 1),
        (JobPaused("too many bad rows"), JobState.OPEN, 0),
        (HandBack(), JobState.OPEN, 0),
        (TransientError("it took too long"), JobState.RETRY_WAIT, 1),
        (JobError("it outgrew its memory"), JobState.FAILED, 1),
    ],
    ids=["cancelled", "paused", "handed back", "put off", "failed"],
)
def test_an_error_raised_on_a_stop_is_the_stop(
    worker: Worker, kind: type[Exception], stop: Exception, state: JobState, attempts: int
) -> None:
    def wraps(job: RunContext) -> Result:
        job.stop(stop)
        try:
            job.check()
        except Exception as error:
            raise kind("the call was broken off") from error
        return Result()

    job_id = worker.submit(wraps)

    with suppress(Retry, JobFailed):
        attempt(worker)

    assert (worker.state(job_id), worker.job(job_id).attempts) == (state, attempts)


def test_a_job_asked_to_stop_before_its_attempt_never_begins(worker: Worker) -> None:
    begun = []
    job_id = worker.submit(lambda job: begun.append(job.id))

    with worker.claimed() as (slot, context):
        context.stop(JobCancelled("user"))
        worker.task.run_job(slot, context)

    assert begun == []
    assert worker.state(job_id) is JobState.CANCELLED


def test_a_job_without_its_fence_stops_without_a_word(worker: Worker) -> None:
    job_id = worker.submit(raising(FenceLost("another worker has it")))

    attempt(worker)

    assert worker.state(job_id) is JobState.RUNNING
    assert worker.job(job_id).error is None


def test_a_result_that_comes_after_the_fence_moved_on_is_not_kept(worker: Worker) -> None:
    def loses_its_fence(job: RunContext) -> Result:
        with worker.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})
        return Result({"answer": 42})

    job_id = worker.submit(loses_its_fence)

    attempt(worker)

    assert (worker.state(job_id), worker.job(job_id).result) == (JobState.RUNNING, None)


def test_a_job_out_of_memory_fails_and_the_error_leaves_no_task(worker: Worker) -> None:
    job_id = worker.submit(raising(MemoryError()), retry=RetryPolicy(maximum_attempts=1))

    with pytest.raises(JobFailed, match="ran out of memory"):
        attempt(worker)

    assert (worker.job(job_id).error or {})["code"] == "resource.memory"


def test_a_transient_failure_waits_by_the_policy_and_celery_is_told_when(worker: Worker) -> None:
    job_id = worker.submit(raising(TransientError("S3 hiccup")), retry=fixed_interval(3, 7))

    with pytest.raises(Retry) as told:
        attempt(worker)

    assert told.value.when == 7
    assert worker.state(job_id) is JobState.RETRY_WAIT


def test_the_receivers_own_wish_outranks_the_policy(worker: Worker) -> None:
    worker.submit(raising(TransientError("busy", retry_after_s=60)), retry=fixed_interval(3, 7))

    with pytest.raises(Retry) as told:
        attempt(worker)

    assert told.value.when == 60


def test_the_last_attempt_fails_the_job(worker: Worker) -> None:
    job_id = worker.submit(raising(TransientError("S3 hiccup")), retry=RetryPolicy(maximum_attempts=1))

    with pytest.raises(JobFailed, match="S3 hiccup"):
        attempt(worker)

    assert worker.state(job_id) is JobState.FAILED
    assert "attempts are used up" in (worker.job(job_id).error or {})["hint"]


def test_a_policy_that_takes_every_failure_retries_a_permanent_one_and_keeps_its_code(worker: Worker) -> None:
    job_id = worker.submit(raising(JobError("no such file", code="s3.not_found")), retry=fixed_interval(2, 1))

    with pytest.raises(Retry):
        attempt(worker)

    assert worker.state(job_id) is JobState.RETRY_WAIT
    assert (worker.job(job_id).error or {})["code"] == "s3.not_found"


def test_a_retry_after_the_fence_moved_on_changes_nothing(worker: Worker) -> None:
    def loses_its_fence(job: RunContext) -> Result:
        with worker.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})
        raise TransientError("S3 hiccup")

    job_id = worker.submit(loses_its_fence)

    with pytest.raises(JobFailed, match="no longer held"):
        attempt(worker)

    assert worker.state(job_id) is JobState.RUNNING


def test_a_job_whose_connection_was_lost_goes_back_uncounted(worker: Worker) -> None:
    lost = OperationalError("SELECT 1", {}, psycopg2.OperationalError("server closed the connection unexpectedly"))
    job_id = worker.submit(raising(lost))

    with pytest.raises(JobFailed, match="handed back"):
        attempt(worker)

    job = worker.job(job_id)
    assert (job.state, job.attempts, job.rescues) == (JobState.OPEN, 0, 1)


def test_a_crash_of_the_type_is_the_jobs_failure(worker: Worker) -> None:
    job_id = worker.submit(raising(ZeroDivisionError("division by zero")))

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["message"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_would_end_a_process_ends_the_attempt_alone(worker: Worker, error: BaseException) -> None:
    job_id = worker.submit(raising(error))

    with pytest.raises(JobFailed):
        attempt(worker)

    job = worker.job(job_id)
    assert (job.state, job.rescues) == (JobState.FAILED, 0)
    assert (job.error or {})["message"] == f"{type(error).__name__}: {error}".removesuffix(": ")


def test_a_child_that_was_told_to_end_by_a_signal_fails_no_job(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "terminate_handler_fired", lambda: True)
    job_id = worker.submit(raising(SystemExit(-241)))

    with pytest.raises(SystemExit):
        attempt(worker)

    assert worker.state(job_id) is JobState.RUNNING


def test_an_error_that_cannot_say_what_it_is_fails_its_job(worker: Worker) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    job_id = worker.submit(raising(MuteError()))

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["message"] == "MuteError: its text cannot be had: LookupError"


def test_an_error_of_a_statement_is_told_without_the_statement(worker: Worker) -> None:
    def run(job: RunContext) -> Result:
        with job.sessions.begin() as session:
            session.execute(text("SELECT CAST(:secret AS bigint)"), {"secret": "hush"})
        return Result()

    job_id = worker.submit(run)

    with pytest.raises(JobFailed):
        attempt(worker)

    message = (worker.job(job_id).error or {})["message"]
    assert message == 'DataError: invalid input syntax for type bigint: "hush"'


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"sum": 3}, "a job type returns a Result or nothing, got dict"),
        (False, "a job type returns a Result or nothing, got False"),
        (Result(cast(Any, [1, 2])), "the data of a Result is a dict, got list"),
        (Result(cast(Any, "done")), "the data of a Result is a dict, got 'done'"),
        (Result(message=cast(Any, 5)), "the message of a Result is a text, got 5"),
        (Result(outcome=cast(Any, "great")), "the outcome of a Result is one of Outcome, got 'great'"),
    ],
    ids=str,
)
def test_what_is_no_result_fails_the_job_and_hides_no_other(worker: Worker, returned: Any, message: str) -> None:
    job_id = worker.submit(lambda _: returned)

    with pytest.raises(JobFailed):
        attempt(worker)

    error = worker.job(job_id).error or {}
    assert (error["code"], error["message"]) == ("job.result_invalid", message)


@pytest.mark.parametrize("wish_s", [math.inf, 1e300, math.nan, -5.0])
def test_a_wish_that_no_calendar_holds_puts_the_attempt_off_all_the_same(worker: Worker, wish_s: float) -> None:
    job_id = worker.submit(raising(TransientError("busy", retry_after_s=wish_s)), retry=fixed_interval(3, 7))

    with pytest.raises(Retry) as told:
        attempt(worker)

    assert told.value.when == (LONGEST_S if wish_s > 0 else 7)
    assert worker.state(job_id) is JobState.RETRY_WAIT


@pytest.mark.feature("S0-10", "S2-71")
def test_a_failure_tells_its_stage_attempt_and_what_it_was_raised_from(worker: Worker) -> None:
    def run(job: RunContext) -> Result:
        job.progress(3, 10, stage="mapping")
        try:
            int("x")
        except ValueError as error:
            raise JobError("this does not fit", code="test.unfit") from error
        return Result()

    job_id = worker.submit(run)

    with pytest.raises(JobFailed):
        attempt(worker)

    job = worker.job(job_id)
    assert (job.state, job.error) == (
        JobState.FAILED,
        {
            "code": "test.unfit",
            "message": "this does not fit",
            "attempt": 1,
            "stage": "mapping",
            "cause": "ValueError: invalid literal for int() with base 10: 'x'",
        },
    )
    [event] = worker.service.events("default", job_id, after=0, limit=10, errors=True)
    assert event.data["error"] == job.error


def test_progress_tells_a_job_at_once_that_it_is_to_stop(worker: Worker) -> None:
    reached = []

    def reports(job: RunContext) -> Result:
        a_control(worker.sessions).cancel("default", job.id, actor="test")
        job.progress(1, 10, stage="first")
        assert job.cancelled
        job.progress(2, 10)
        reached.append("after the wish to cancel")
        return Result()

    job_id = worker.submit(reports)

    attempt(worker)

    assert reached == []
    assert (worker.state(job_id), worker.job(job_id).progress.stage) == (JobState.CANCELLED, "first")


def test_a_checkpoint_tells_a_job_that_it_is_to_be_paused(worker: Worker) -> None:
    def keeps(job: RunContext) -> Result:
        a_control(worker.sessions).pause("default", job.id, actor="test")
        job.checkpoint({"step": 3})
        job.wait(60)
        return Result()

    job_id = worker.submit(keeps)

    attempt(worker)

    job = worker.job(job_id)
    assert (job.state, job.paused, job.checkpoint) == (JobState.OPEN, True, {"step": 3})


@pytest.mark.feature("S2-39")
def test_a_job_that_takes_more_memory_than_it_asked_for_fails_and_the_next_has_its_own(
    worker: Worker,
) -> None:
    def takes_200_mb(_: RunContext) -> Result:
        return Result({"bytes": len(b"".join(bytes(2**20) for _ in range(200)))})

    limit_before = resource.getrlimit(resource.RLIMIT_DATA)
    greedy = worker.submit(takes_200_mb, resources=Resources(memory_mb=64))
    modest = worker.submit(takes_200_mb)

    with pytest.raises(JobFailed, match="needed more than the 64 MB of memory"):
        attempt(worker)
    attempt(worker)

    error = worker.job(greedy).error or {}
    assert (error["code"], error["data"]) == ("resource.memory", {"memory_mb": 64})
    assert worker.state(modest) is JobState.COMPLETED
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit_before
