"""The task that a bell starts, called in this very process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from app.domain import portions
from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from config.settings import Settings
from tasks import members, process, work
from tasks.base import JobFailed
from tasks.context import RunContext
from tests.integration.worker import Worker


@pytest.fixture
def start(
    sessions: Sessions, settings: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Worker]]:
    """Starts workers of a kind, whose batches are never out of time."""
    monkeypatch.setattr(members, "KEEP_FOR_S", 60.0)
    monkeypatch.setattr(work, "GO_ON_S", 60.0)
    started: list[Worker] = []

    def make(*, cheap: bool) -> Worker:
        worker = Worker(sessions, settings, objects, cheap=cheap)
        worker.heart.start()
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.heart.stop()


def answers(_: RunContext) -> Result:
    return Result({"answer": 42})


def fails(_: RunContext) -> Result:
    raise JobError("no", code="test.no")


@pytest.mark.parametrize("cheap", [True, False])
def test_a_bell_without_work_returns_at_once_and_wakes_no_other_worker(
    start: Callable[..., Worker], *, cheap: bool
) -> None:
    worker = start(cheap=cheap)

    work.work(worker.queue)

    assert worker.queue not in worker.bell.rings


def test_a_bell_of_the_data_queue_runs_one_job_and_rings_for_the_next(start: Callable[..., Worker]) -> None:
    worker = start(cheap=False)
    ids = [worker.submit(answers), worker.submit(answers)]

    work.work("data")

    assert [worker.state(job_id) for job_id in ids] == [JobState.COMPLETED, JobState.QUEUED]
    assert worker.bell.rings == ["data", "engine"]


def test_a_bell_of_the_data_queue_rings_for_the_next_after_a_failure_too(start: Callable[..., Worker]) -> None:
    worker = start(cheap=False)
    job_id = worker.submit(fails)

    with pytest.raises(JobFailed):
        work.work("data")

    assert worker.state(job_id) is JobState.FAILED
    assert worker.bell.rings == ["data", "engine"]


def test_a_bell_of_cheap_jobs_runs_all_there_are(start: Callable[..., Worker]) -> None:
    worker = start(cheap=True)
    ids = [worker.submit(answers) for _ in range(60)]

    work.work("small")

    assert {worker.state(job_id) for job_id in ids} == {JobState.COMPLETED}
    assert worker.bell.rings == ["engine"]


def test_a_bell_of_cheap_jobs_rings_for_the_rest_when_its_time_is_over(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "GO_ON_S", 0.0)
    monkeypatch.setattr(portions, "CHEAP_AT_ONCE", 2)
    worker = start(cheap=True)
    ids = [worker.submit(answers) for _ in range(3)]

    work.work("small")

    assert [worker.state(job_id) for job_id in ids].count(JobState.COMPLETED) == 2
    assert worker.bell.rings == ["small", "engine"]


def test_a_claim_that_lost_its_connection_is_left_to_the_heart(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(cheap=False)
    monkeypatch.setattr(Runs, "claim", _raising(OperationalError("EXECUTE", {}, psycopg2.OperationalError("gone"))))

    with caplog.at_level(logging.WARNING):
        work.work("data")

    assert "claim.lost" in caplog.messages
    assert worker.bell.rings == []


def test_a_claim_that_is_wrong_itself_is_not_hidden(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(cheap=False)
    monkeypatch.setattr(
        Runs, "claim", _raising(ProgrammingError("EXECUTE", {}, psycopg2.ProgrammingError("no column")))
    )

    with pytest.raises(ProgrammingError):
        work.work("data")


def _raising(error: Exception) -> Callable[..., None]:
    def claim(*_: object, **__: object) -> None:
        raise error

    return claim


def test_a_bell_before_the_worker_is_ready_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_current", None)

    with pytest.raises(RuntimeError, match="not a Haulier worker that is ready"):
        work.work("data")


@pytest.mark.parametrize("queues", ["data,small", "elsewhere"])
def test_a_worker_serves_one_of_our_queues_or_does_not_start(settings: Settings, queues: str) -> None:
    variables = {
        **os.environ,
        "HAULIER_DATABASE_URL": settings.database_url.get_secret_value(),
        "HAULIER_REDIS_URL": settings.redis_url.get_secret_value(),
    }
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-Q", queues, "--pool", "solo"]

    ran = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode != 0
    assert "a worker serves one queue: start it with -Q and one of data, small, http, retry" in ran.stderr
