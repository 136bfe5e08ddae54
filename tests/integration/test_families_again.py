"""Families that are opened again, and families like others."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, TransientError
from app.domain.families import Counts, Member, OnFailure
from app.domain.job_types import Result
from app.domain.jobs import Job, Outcome
from app.domain.lifecycle import Event, JobState
from app.domain.pipelines import Stage
from app.domain.retry import RetryChanges, RetryPolicy
from app.engine.fold import begin_families, fold
from app.persistence.sessions import Sessions
from app.services.families import Payload, SubmitBatch
from app.services.pipelines import SubmitPipeline
from tests.factories import a_request
from tests.integration.families import Installation

DONE, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
AT_ONCE = RetryChanges({"initial_interval_s": 0.0, "jitter": False})


class Bench(Installation):
    """An installation with batches of ``echo`` payloads and pipelines of ``echo`` stages."""

    def batch(self, count: int = 4, **options: Any) -> Job:
        payloads = [Payload("echo", {"value": number}, name=f"p{number}") for number in range(count)]
        return self.families.create_batch(SubmitBatch("default", payloads, "test", **options)).job

    def pipeline(self, *stages: Stage, **options: Any) -> Job:
        return self.pipelines.create(SubmitPipeline("default", "test", stages, "test", **options)).job

    def at_work(self) -> dict[str, Job]:
        """Claims what may run now."""
        self.tick()
        return {job.name or "": job for job in self.claim()}

    def retry(self, job: Job) -> Job:
        return self.control.retry("default", job.id, actor="test")

    def clone(self, job: Job) -> Job:
        return self.clones.clone("default", job.id, actor="another")

    def job(self, job: Job) -> Job:
        return self.jobs.get("default", job.id)

    def counts(self, job: Job) -> Counts:
        return self.families.counts("default", job.id)

    def ends(self, family: Job) -> dict[str, JobState]:
        self.tick()
        return {name: job.state for name, job in self.children(family.id).items()}

    def is_sound(self) -> bool:
        """Whether every family's counts are those of its children, and events are numbered without a gap."""
        self.tick()
        with self.sessions.begin() as session:
            wrong = session.execute(
                text(
                    """
                    SELECT count(*) FROM families AS f JOIN LATERAL (
                        SELECT count(*) AS total, count(*) FILTER (WHERE state = 'completed') AS completed,
                            count(*) FILTER (WHERE state = 'failed') AS failed,
                            count(*) FILTER (WHERE state = 'cancelled') AS cancelled
                        FROM jobs WHERE parent_id = f.job_id
                    ) AS c ON true
                    WHERE (f.total, f.completed, f.failed, f.cancelled)
                        <> (c.total, c.completed, c.failed, c.cancelled)
                    """
                )
            ).scalar_one()
        numbers = self.sequence()
        return wrong == 0 and numbers == list(range(1, len(numbers) + 1))


@pytest.fixture
def here(sessions: Sessions) -> Bench:
    return Bench(sessions)


def stage(name: str, *depends_on: str, **config: Any) -> Stage:
    return Stage(name, "echo", config, depends_on)


def a_failed_batch(here: Bench, **options: Any) -> Job:
    """Of four payloads the first has completed, the second failed, and the others were skipped."""
    batch = here.batch(max_concurrency=2, on_failure=OnFailure.STOP, **options)
    at_work = here.at_work()
    here.finish(at_work["p0"])
    here.fail(at_work["p1"])
    here.tick()
    return here.job(batch)


def test_retrying_a_failed_batch_runs_what_did_not_complete_and_nothing_else(here: Bench) -> None:
    batch = a_failed_batch(here)

    opened = here.retry(batch)
    sizes = here.work_off()

    assert (batch.state, opened.state, sizes) == (FAILED, JobState.OPEN, [2, 1])
    assert (here.job(batch).state, here.job(batch).outcome) == (DONE, Outcome.SUCCESS)
    assert [job.fence for job in here.children(batch.id).values()] == [1, 2, 1, 1]
    assert here.counts(batch) == Counts(4, 0, 4, 0, 0)
    assert here.is_sound()


def test_a_batch_that_was_opened_again_tells_how_far_it_is(here: Bench) -> None:
    batch = a_failed_batch(here)

    here.retry(batch)
    here.tick()

    now = here.job(batch)
    assert (now.state, now.finished_at, now.progress.parts_done, now.progress.parts_total) == (
        JobState.RUNNING,
        None,
        1,
        4,
    )
    counts = here.counts(batch)
    assert (counts.completed, counts.failed, counts.cancelled, counts.pending) == (1, 0, 0, 3)


def test_a_batch_that_was_opened_again_may_fail_again_and_be_opened_again(here: Bench) -> None:
    batch = a_failed_batch(here)
    here.retry(batch)
    at_work = here.at_work()
    here.fail(at_work["p1"])
    here.finish(at_work["p2"])
    here.tick()
    again = here.job(batch).state

    here.retry(batch)
    here.work_off()

    assert (again, here.state(batch.id)) == (FAILED, DONE)
    assert here.is_sound()


def test_a_child_that_is_opened_with_its_family_begins_its_attempts_anew(here: Bench) -> None:
    batch = here.batch(1)
    here.fail(*here.at_work().values())
    here.tick()

    here.retry(batch)
    child = here.children(batch.id)["p0"]

    assert (child.state, child.attempts, child.fence, child.finished_at) == (JobState.BLOCKED, 0, 1, None)
    events = here.jobs.events("default", child.id, after=0, limit=100)
    assert (events[-1].type, events[-1].source, events[-1].actor) == (Event.RENEW, FAILED, "test")


def test_retrying_a_cancelled_batch_runs_what_was_cancelled(here: Bench) -> None:
    batch = here.batch(max_concurrency=2)
    here.finish(here.at_work()["p0"])
    held = here.children(batch.id)["p1"]
    here.control.cancel("default", batch.id, actor="test")
    here.runs.cancel(held, "parent")

    here.retry(batch)
    here.work_off()

    assert here.ends(batch) == dict.fromkeys(("p0", "p1", "p2", "p3"), DONE)
    assert here.is_sound()


def test_a_batch_that_was_cancelled_before_it_began_can_be_opened_again(here: Bench) -> None:
    batch = here.batch()
    here.control.cancel("default", batch.id, actor="test")

    here.retry(batch)
    here.control.cancel("default", batch.id, actor="test")
    here.retry(batch)
    here.work_off()

    assert here.state(batch.id) is DONE
    assert here.is_sound()


def test_a_family_is_not_opened_while_its_children_are_still_stopping(here: Bench) -> None:
    batch = here.batch(2)
    here.at_work()
    here.control.cancel("default", batch.id, actor="test")

    with pytest.raises(ConflictError) as raised:
        here.retry(batch)

    assert (raised.value.code, raised.value.data["stopping"]) == ("family.stopping", 2)
    assert here.state(batch.id) is CANCELLED


def test_a_family_does_not_begin_before_the_ends_of_its_children_are_taken_back(here: Bench) -> None:
    batch = a_failed_batch(here)
    here.retry(batch)

    too_early = begin_families(here.leader)
    fold(here.leader)

    assert (too_early, begin_families(here.leader)) == (0, 1)
    assert here.state(batch.id) is JobState.RUNNING


@pytest.mark.parametrize("folded", [True, False])
def test_an_end_counts_once_whether_the_family_was_opened_before_or_after_it_was_heard_of(
    here: Bench, *, folded: bool
) -> None:
    pipeline = here.pipeline(stage("a"), stage("b", "a"), failure_strategy=OnFailure.RETRY)
    held = here.at_work()["a"]
    here.control.cancel("default", pipeline.id, actor="test")
    here.fail(held)
    if folded:
        here.tick()

    here.retry(pipeline)
    here.work_off()

    assert here.ends(pipeline) == {"a": DONE, "b": DONE}
    assert here.job(pipeline).outcome is Outcome.SUCCESS
    assert here.is_sound()


def test_retrying_a_pipeline_goes_on_from_the_failed_stage(here: Bench) -> None:
    value = "{{ stages.bad.result.rows }}"
    pipeline = here.pipeline(stage("first"), stage("bad", "first"), stage("last", "bad", "first", value=value))
    here.finish(*here.at_work().values())
    here.fail(*here.at_work().values())
    failed = here.ends(pipeline)

    here.retry(pipeline)
    seen = []
    while at_work := here.at_work():
        seen += [(name, job.config) for name, job in at_work.items()]
        for job in at_work.values():
            here.runs.complete(job, Result({"rows": 3}))

    assert failed == {"first": DONE, "bad": FAILED, "last": CANCELLED}
    assert seen == [("bad", {}), ("last", {"value": 3})]
    assert (here.state(pipeline.id), here.job(pipeline).progress.parts_done) == (DONE, 3)
    assert here.is_sound()


def test_a_stage_of_a_pipeline_that_was_opened_again_may_be_run_again_as_often_as_before(here: Bench) -> None:
    pipeline = here.pipeline(stage("bad"), failure_strategy=OnFailure.RETRY, stage_retries=1)

    runs = []
    for _ in range(2):
        runs.append(0)
        while at_work := here.at_work():
            runs[-1] += 1
            here.fail(*at_work.values())
        if len(runs) == 1:
            here.retry(pipeline)

    assert runs == [2, 2]
    assert here.state(pipeline.id) is FAILED
    assert here.is_sound()


def test_a_stage_waits_again_for_every_need_that_has_not_completed(here: Bench) -> None:
    stages = [stage("good"), stage("bad"), stage("worse"), stage("join", "good", "bad", "worse")]
    pipeline = here.pipeline(*stages)
    at_work = here.at_work()
    here.finish(at_work["good"])
    here.fail(at_work["bad"], at_work["worse"])
    here.tick()

    here.retry(pipeline)
    needs_left = here.children(pipeline.id)["join"].needs_left
    at_work = here.at_work()
    here.finish(at_work["bad"])
    with_one_left = here.at_work()
    here.finish(at_work["worse"])

    assert (needs_left, set(at_work), with_one_left, set(here.at_work())) == (2, {"bad", "worse"}, {}, {"join"})


def test_a_family_that_completed_or_is_at_work_cannot_be_retried(here: Bench, sessions: Sessions) -> None:
    done = here.batch(1)
    here.work_off()
    at_work = here.batch(1)
    here.at_work()

    for batch in (done, at_work):
        with pytest.raises(ConflictError) as raised:
            here.retry(batch)
        assert raised.value.code == "job.not_retriable"
    with pytest.raises(NotFoundError):
        here.control.retry("acme", done.id, actor="test")


def test_a_payload_that_waits_for_another_attempt_has_it_when_another_has_stopped_the_batch(here: Bench) -> None:
    batch = here.batch(3, max_concurrency=2, on_failure=OnFailure.STOP, retry=AT_ONCE)
    at_work = here.at_work()
    here.runs.retry(at_work["p0"], TransientError("not now"))
    here.fail(at_work["p1"])

    here.work_off()

    assert here.ends(batch) == {"p0": DONE, "p1": FAILED, "p2": CANCELLED}
    assert here.state(batch.id) is FAILED


def test_a_job_waits_for_a_need_that_was_opened_again_before_its_failure_was_heard_of(here: Bench) -> None:
    first = here.jobs.submit(a_request()).job
    last = here.jobs.submit(a_request(depends_on=(first.id,))).job
    here.fail(*here.claim())

    here.retry(first)
    here.tick()
    meanwhile = here.state(last.id)
    here.work_off()

    assert (meanwhile, here.state(last.id)) == (JobState.BLOCKED, DONE)


def test_a_clone_of_a_batch_has_the_payloads_it_was_given_and_none_that_were_added(here: Bench) -> None:
    options: dict[str, Any] = {"max_concurrency": 3, "max_payloads": 9, "on_failure": OnFailure.STOP}
    first = here.batch(2, timeout_s=90, labels={"a": "b"}, retry=AT_ONCE, **options)
    here.families.extend("default", first.id, [Payload("echo", {}, AT_ONCE, 5, "sent later")])
    added = Member("echo", {}, "small", RetryPolicy(), name="added")
    extension = ({**added.as_json(), "retry_changes": {}},)
    here.runs.complete(here.at_work()["p0"], Result(extension=extension))
    here.tick()

    clone = here.clone(first)

    made = here.children(clone.id)
    assert list(here.children(first.id)) == ["p0", "p1", "sent later", "added"]
    assert list(made) == ["p0", "p1", "sent later"]
    assert (made["p1"].config, made["p1"].retry) == ({"value": 1}, here.children(first.id)["p1"].retry)
    assert (made["sent later"].attempt_timeout_s, made["sent later"].queue) == (5, "data")
    assert (clone.type, clone.config, clone.clone_of, clone.created_by) == (
        "batch",
        first.config,
        first.id,
        "another",
    )
    assert (clone.labels, clone.deadline_at is not None) == ({"a": "b"}, True)
    assert here.counts(clone).total == 3


def test_a_clone_of_a_large_batch_has_every_payload_at_its_place(here: Bench) -> None:
    first = here.batch(2_100)

    clone = here.clone(first)

    found = here.families.children("default", clone.id, after=-1, limit=3_000)
    assert [(child.child_no, child.config["value"]) for child in found] == [(n, n) for n in range(2_100)]


def test_a_clone_of_a_pipeline_fills_its_configs_in_anew(here: Bench) -> None:
    retry = RetryChanges({"maximum_attempts": 7})
    later = Stage("later", "echo", {"value": "{{ stages.first.result.n }}"}, ("first",), retry)
    pipeline = here.pipeline(stage("first"), later, failure_strategy=OnFailure.RETRY, stage_retries=2, parallelism=3)
    here.runs.complete(here.at_work()["first"], Result({"n": 1}))
    here.finish(*here.at_work().values())

    clone = here.clone(pipeline)
    here.runs.complete(here.at_work()["first"], Result({"n": 2}))
    made = here.at_work()["later"]

    assert (clone.name, clone.config, clone.clone_of) == ("test", pipeline.config, pipeline.id)
    assert (made.parent_id, made.config, made.retry.maximum_attempts) == (clone.id, {"value": 2}, 7)


def test_a_clone_of_another_tenants_family_is_not_found(here: Bench) -> None:
    with pytest.raises(NotFoundError):
        here.clones.clone("acme", here.batch(1).id, actor="test")


def test_a_clone_is_refused_when_its_payloads_could_not_be_sent_now(here: Bench, sessions: Sessions) -> None:
    batch = here.batch(2)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET type = 'gone' WHERE parent_id = :id AND child_no = 1"), {"id": batch.id})

    with pytest.raises(InvalidRequestError) as raised:
        here.clone(batch)

    assert [problem.pointer for problem in raised.value.problems] == ["/payloads/1/type"]
