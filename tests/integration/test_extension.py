"""Payloads that add payloads to their batch while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import ForbiddenError, JobError, TransientError
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Job, Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.pipelines import Stage
from app.domain.ports import ObjectStore
from app.domain.resources import Resources
from app.domain.retry import RetryChanges
from app.engine.fold import fold
from app.persistence.sessions import Sessions
from app.services.families import Families, Payload, SubmitBatch
from app.services.pipelines import Pipelines, SubmitPipeline
from config.settings import Settings
from tasks import members
from tasks.context import RunContext
from tasks.types.echo import JOB_TYPE as ECHO
from tasks.types.extend import JOB_TYPE as EXTEND
from tasks.types.fail import JOB_TYPE as FAIL
from tests.integration.families import Installation
from tests.integration.worker import Action, Worker, run_small


class Guarded(JobConfig):
    """A place that not every tenant may use."""

    place: str


def _guard(submission: Submission, config: Guarded) -> None:
    raise ForbiddenError(f"{submission.tenant} may not use {config.place}")


GUARDED = JobType("guarded", Guarded, run=lambda _job, _config: None, queue="small", check=_guard)


class Bench(Installation):
    """An installation whose slot really runs what it claims: the test's functions, ``echo`` and ``extend``."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.sessions)
        self.worker = worker
        self.jobs = worker.service
        self.families = Families(worker.sessions, self.bell, self.jobs)
        self.pipelines = Pipelines(worker.sessions, self.bell, self.jobs)

    def batch(self, *payloads: Payload | Action, **options: Any) -> Job:
        made = [one if isinstance(one, Payload) else Payload("do", self.worker.config(one)) for one in payloads]
        return self.families.create_batch(SubmitBatch("default", made, "test", **options)).job

    def run(self, most: int = 50) -> int:
        """One claim's worth of work; how many jobs that was."""
        self.tick()
        return run_small(self.worker, most=most)

    def run_all(self) -> None:
        while self.run():
            pass

    def children_in_order(self, batch: Job) -> list[Job]:
        return self.families.children("default", batch.id, after=-1, limit=1000)

    def of(self, batch: Job) -> list[tuple[str, JobState]]:
        found = self.children_in_order(batch)
        assert [child.child_no for child in found] == list(range(len(found)))
        return [(child.type, child.state) for child in found]

    def error(self, batch: Job) -> dict[str, Any]:
        """Why the first payload failed."""
        return self.families.children("default", batch.id, after=-1, limit=1)[0].error or {}


@pytest.fixture
def here(
    sessions: Sessions, settings: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """No claimed batch is out of time, however slow the machine is."""
    monkeypatch.setattr(members, "KEEP_FOR_S", 60.0)
    worker = Worker(sessions, settings, objects, cheap=True, types=(ECHO, EXTEND, FAIL, GUARDED))
    worker.heart.start()
    yield Bench(worker)
    worker.heart.stop()


ONE = {"type": "echo", "config": {"value": 1}}
DONE = JobState.COMPLETED


@pytest.mark.feature("S2-08", "S3-20")
def test_a_payload_adds_payloads_that_run_before_the_batch_is_over(here: Bench) -> None:  # S3-20
    def adds(job: RunContext) -> None:
        job.extend([ONE])
        retry = {"maximum_attempts": 7, "initial_interval": "5s"}
        job.extend([{**ONE, "name": "second", "retry": retry}])

    batch = here.batch(adds)

    here.run_all()

    last = here.children(batch.id)["second"]
    assert here.of(batch) == [("do", DONE), ("echo", DONE), ("echo", DONE)]
    assert (last.retry.maximum_attempts, last.retry.initial_interval_s, last.config) == (7, 5, {"value": 1})
    assert (here.state(batch.id), here.families.counts("default", batch.id).completed) == (DONE, 3)


def test_a_payload_that_is_added_says_how_it_runs_as_any_other(here: Bench) -> None:
    resources = {"memory": "1GB", "cpu": 0.5, "priority": "high"}
    keyed = {**ONE, "name": "keyed", "concurrency_key": "bank:1", "max_concurrency": 2, "priority": "low"}
    batch = here.batch(lambda job: job.extend([keyed, {**ONE, "name": "large", "resources": resources}]))

    here.run()
    here.tick()

    keyed_job, large = (here.children(batch.id)[name] for name in ("keyed", "large"))
    assert (keyed_job.concurrency_key, keyed_job.max_concurrency, keyed_job.priority) == ("bank:1", 2, Priority.LOW)
    assert (large.resources, large.queue, large.priority) == (Resources(1024, 500), "data", Priority.HIGH)
    assert large.created_by == f"job:{here.children_in_order(batch)[0].id}"


def test_the_batch_is_not_over_between_the_giver_and_the_given(here: Bench) -> None:
    batch = here.batch(Payload("extend", {"payloads": [ONE, ONE]}))
    here.run()

    fold(here.leader)

    assert here.state(batch.id) is JobState.RUNNING
    assert [type_ for type_, _ in here.of(batch)] == ["extend", "echo", "echo"]


@pytest.mark.feature("S3-20")
def test_payloads_may_add_payloads_that_add_payloads(here: Bench) -> None:  # S3-20
    inner = {"type": "extend", "config": {"payloads": [ONE, ONE]}}
    batch = here.batch(Payload("extend", {"payloads": [inner, ONE]}))

    here.run_all()

    assert [type_ for type_, _ in here.of(batch)] == ["extend", "extend", "echo", "echo", "echo"]
    assert here.state(batch.id) is DONE


@pytest.mark.parametrize("most", [1, 50], ids=["alone", "in a claimed batch"])
def test_many_givers_add_all_they_have_each_once(here: Bench, most: int) -> None:
    batch = here.batch(*(Payload("extend", {"payloads": [ONE] * 3}) for _ in range(8)), max_concurrency=4)

    while here.run(most):
        pass

    counts = here.families.counts("default", batch.id)
    assert (counts.total, counts.completed, here.state(batch.id)) == (32, 32, DONE)


@pytest.mark.parametrize("error", [JobError("no"), TransientError("not now"), ZeroDivisionError()], ids=type)
def test_a_payload_that_fails_adds_nothing(here: Bench, error: Exception) -> None:
    def adds_and_fails(job: RunContext) -> None:
        job.extend([ONE])
        raise error

    batch = here.batch(adds_and_fails)

    here.run()
    here.tick()

    assert len(here.of(batch)) == 1


def test_only_the_run_that_succeeds_adds_what_it_gave(here: Bench) -> None:
    def adds_and_fails_at_first(job: RunContext) -> None:
        job.extend([ONE])
        if job.job.attempts == 1:
            raise TransientError("not now")

    config = here.worker.config(adds_and_fails_at_first)
    batch = here.batch(Payload("do", config, retry=RetryChanges({"initial_interval_s": 0})))

    here.run_all()

    assert here.of(batch) == [("do", DONE), ("echo", DONE)]


def test_an_end_that_was_not_written_adds_nothing_until_it_is(here: Bench, sessions: Sessions) -> None:
    def loses_its_job(job: RunContext) -> None:
        job.extend([ONE])
        with sessions.begin() as session:
            session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})

    batch = here.batch(loses_its_job, Payload("echo", {}))

    here.run()
    here.tick()

    assert here.of(batch) == [("do", JobState.RUNNING), ("echo", DONE)]


def test_a_batch_that_was_cancelled_takes_nothing_more(here: Bench) -> None:
    def adds_as_its_batch_is_cancelled(job: RunContext) -> Result:
        job.extend([ONE])
        here.control.cancel("default", batch.id, actor="test")
        return Result()

    batch = here.batch(adds_as_its_batch_is_cancelled)

    here.run()
    here.tick()

    assert len(here.of(batch)) == 1
    assert here.state(batch.id) is JobState.CANCELLED


def test_what_is_given_to_a_paused_batch_waits_with_it(here: Bench) -> None:
    def adds_as_its_batch_is_paused(job: RunContext) -> None:
        job.extend([ONE])
        here.control.pause("default", batch.id, actor="test")

    batch = here.batch(adds_as_its_batch_is_paused)
    here.run_all()
    while_paused = here.of(batch)

    here.control.resume("default", batch.id, actor="test")
    here.run_all()

    assert while_paused == [("do", DONE), ("echo", JobState.BLOCKED)]
    assert here.of(batch) == [("do", DONE), ("echo", DONE)]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"type": "nothing", "config": {}}, "there is no job type 'nothing'"),
        ({"type": "echo", "config": {"wrong": 1}}, "/config/wrong"),
        ({"config": {}}, "type"),
        ({"type": "echo", "color": "red"}, "color"),
        ({"type": "echo", "config": {"value": {1, 2}}}, "not JSON serializable"),
        ({"type": "echo", "config": {"value": "\0"}}, "U+0000"),
        ({"type": "echo", "name": "\0"}, "U+0000 or half of a surrogate pair"),
        ({"type": "echo", "concurrency_key": "\0"}, "U+0000 or half of a surrogate pair"),
        ({"type": "echo", "max_concurrency": 2}, "expected a concurrency_key"),
        ({"type": "echo", "priority": "urgent"}, "priority"),
        ({"type": "echo", "resources": {"memory": "lots"}}, "expected a text like"),
        ({"type": "echo", "resources": {"memory": "1GB", "memory_mb": 5}}, "got both"),
        ({"type": "echo", "resources": {"cpu": 0}}, "expected 0.001 to 1024 processors"),
    ],
)
def test_a_payload_that_does_not_fit_fails_its_giver_and_is_said(
    here: Bench, payload: dict[str, Any], said: str
) -> None:
    batch = here.batch(lambda job: job.extend([ONE, payload]))

    here.run()
    here.tick()

    assert len(here.of(batch)) == 1
    assert (here.error(batch)["code"], said in here.error(batch)["message"]) == ("extend.invalid", True)
    assert here.state(batch.id) is JobState.FAILED


def test_a_job_without_a_batch_cannot_add_payloads(here: Bench) -> None:
    request = SubmitJob("default", "extend", {"payloads": [ONE]}, "test")
    alone = here.jobs.submit(request).job
    pipeline = here.pipelines.create(
        SubmitPipeline("default", "p", [Stage("one", "extend", {"payloads": [ONE]})], "test")
    ).job

    here.run()

    for job in (here.jobs.get("default", alone.id), here.children(pipeline.id)["one"]):
        assert (job.state, (job.error or {})["code"]) == (JobState.FAILED, "extend.no_batch")


def test_a_filled_in_config_that_does_not_fit_fails_its_stage_and_is_said(here: Bench) -> None:
    stages = [
        Stage("first", "echo", {"value": "many"}),
        Stage("bad", "fail", {"until_attempt": "{{ stages.first.result.value }}"}, ("first",)),
    ]
    pipeline = here.pipelines.create(SubmitPipeline("default", "p", stages, "test")).job

    here.run_all()

    bad = here.children(pipeline.id)["bad"]
    assert (bad.state, (bad.error or {})["code"]) == (JobState.FAILED, "job.config_invalid")
    assert [fault["pointer"] for fault in (bad.error or {})["errors"]] == ["/config/until_attempt"]


def test_a_filled_in_config_passes_the_checks_of_its_type_before_it_runs(here: Bench) -> None:
    stages = [
        Stage("first", "echo", {"value": "theirs"}),
        Stage("bad", "guarded", {"place": "{{ stages.first.result.value }}"}, ("first",)),
    ]
    pipeline = here.pipelines.create(SubmitPipeline("default", "p", stages, "test")).job

    here.run_all()

    bad = here.children(pipeline.id)["bad"]
    assert (bad.state, (bad.error or {})["message"]) == (JobState.FAILED, "default may not use theirs")


@pytest.mark.feature("S3-20")
def test_payloads_that_add_themselves_without_end_are_stopped(here: Bench) -> None:  # S3-20
    def adds_itself(job: RunContext) -> None:
        job.extend([{"type": "do", "config": job.job.config}])

    batch = here.batch(adds_itself, max_payloads=5)

    here.run_all()

    states = [state for _, state in here.of(batch)]
    assert states == [DONE, DONE, DONE, DONE, JobState.FAILED]
    assert here.state(batch.id) is DONE
