"""Pipelines: stages that wait for each other and hand their results on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import ConflictError, InvalidRequestError
from app.domain.families import OnFailure
from app.domain.job_types import Result
from app.domain.jobs import Job, Outcome
from app.domain.lifecycle import JobState
from app.domain.pipelines import MAX_FILLED_BYTES, Stage
from app.engine.stages import MAX_RESULT_BYTES
from app.persistence.sessions import Sessions
from app.services.pipelines import SubmitPipeline
from tests.integration.families import Installation

STATES = dict[str, tuple[JobState, str | None]]


class Bench(Installation):
    """An installation that runs pipelines of ``echo`` stages."""

    def pipeline(self, *stages: Stage, **options: Any) -> Job:
        return self.pipelines.create(SubmitPipeline("default", "test", stages, "test", **options)).job

    def at_work(self) -> dict[str, Job]:
        """Claims what may run now."""
        self.tick()
        return {job.name or "": job for job in self.claim()}

    def ends(self, pipeline: Job) -> STATES:
        self.tick()
        return {name: (job.state, job.cancel_reason) for name, job in self.children(pipeline.id).items()}

    def job(self, job: Job) -> Job:
        return self.jobs.get("default", job.id)


@pytest.fixture
def here(sessions: Sessions) -> Bench:
    return Bench(sessions)


def stage(name: str, *depends_on: str, **config: Any) -> Stage:
    return Stage(name, "echo", config, depends_on)


COMPLETED = (JobState.COMPLETED, None)
FAILED = (JobState.FAILED, None)
SKIPPED = (JobState.CANCELLED, "skipped")


@pytest.mark.feature("S2-42", "S2-43")
def test_stages_run_in_the_order_of_what_they_wait_for(here: Bench) -> None:  # S2-42 S2-43
    pipeline = here.pipeline(
        stage("last", "left", "right"), stage("left", "first"), stage("right", "first"), stage("first")
    )

    seen = []
    while at_work := here.at_work():
        seen.append(set(at_work))
        here.finish(*at_work.values())

    assert seen == [{"first"}, {"left", "right"}, {"last"}]
    assert (here.job(pipeline).state, here.job(pipeline).outcome) == (JobState.COMPLETED, Outcome.SUCCESS)


@pytest.mark.feature("S2-47")
def test_no_more_stages_are_at_work_than_may_be(here: Bench) -> None:  # S2-47
    here.pipeline(*(stage(f"s{n}") for n in range(5)), parallelism=2)

    assert here.work_off() == [2, 2, 1]


def test_a_stage_takes_values_from_the_results_of_those_before_it(here: Bench) -> None:
    later = stage(
        "later",
        "first",
        value=["{{ stages.first.result.rows.1 }}", "{{ stages.first.result.table }}: {{stages.first.result}}"],
    )
    here.pipeline(stage("first"), later)
    here.runs.complete(here.at_work()["first"], Result({"rows": [1, {"n": None}], "table": "contacts"}))

    config = here.at_work()["later"].config

    assert config == {"value": [{"n": None}, 'contacts: {"rows": [1, {"n": null}], "table": "contacts"}']}


def test_a_stage_sees_what_is_null_in_a_result_as_null(here: Bench) -> None:
    here.pipeline(stage("first"), stage("later", "first", value="{{ stages.first.result.none }}"))
    here.runs.complete(here.at_work()["first"], Result({"none": None}))

    assert here.at_work()["later"].config == {"value": None}


@pytest.mark.parametrize(
    ("result", "code"),
    [({"other": 1}, "stage.reference_missing"), ({"table": "x" * (MAX_FILLED_BYTES + 1)}, "stage.config_too_large")],
    ids=["missing", "too large"],
)
def test_a_stage_whose_config_cannot_be_filled_in_fails_and_says_why(
    here: Bench, result: dict[str, Any], code: str
) -> None:
    pipeline = here.pipeline(
        stage("first"),
        stage("later", "first", value="{{ stages.first.result.table }}"),
        stage("last", "later"),
        failure_strategy=OnFailure.RETRY,
    )
    here.runs.complete(here.at_work()["first"], Result(result))

    ends = here.ends(pipeline)

    later = here.children(pipeline.id)["later"]
    assert ends == {"first": COMPLETED, "later": FAILED, "last": SKIPPED}
    assert (later.error or {})["code"] == code
    assert here.job(pipeline).state is JobState.FAILED
    with pytest.raises(ConflictError):
        here.control.retry("default", later.id, actor="test")


@pytest.mark.feature("S2-44")
def test_stop_on_error_skips_what_has_not_begun_and_lets_the_rest_end(here: Bench) -> None:  # S2-44
    stages = [stage("bad"), stage("beside"), stage("after", "bad"), stage("elsewhere", "beside")]
    pipeline = here.pipeline(*stages)
    at_work = here.at_work()
    here.fail(at_work["bad"])
    here.tick()
    while_one_runs = here.job(pipeline).state
    here.finish(at_work["beside"])

    ends = here.ends(pipeline)

    assert while_one_runs is JobState.RUNNING
    assert ends == {"bad": FAILED, "beside": COMPLETED, "after": SKIPPED, "elsewhere": SKIPPED}
    assert here.job(pipeline).state is JobState.FAILED


@pytest.mark.feature("S2-45")
def test_continue_skips_only_what_waits_for_the_failed_one(here: Bench) -> None:  # S2-45
    stages = [
        stage("bad"),
        stage("beside"),
        stage("after", "bad"),
        stage("last", "after"),
        stage("elsewhere", "beside"),
    ]
    pipeline = here.pipeline(*stages, failure_strategy=OnFailure.CONTINUE)
    at_work = here.at_work()
    here.fail(at_work["bad"])
    here.finish(at_work["beside"])
    here.work_off()

    ends = here.ends(pipeline)

    assert ends == {"bad": FAILED, "beside": COMPLETED, "after": SKIPPED, "last": SKIPPED, "elsewhere": COMPLETED}
    assert (here.job(pipeline).state, here.job(pipeline).outcome) == (JobState.COMPLETED, Outcome.PARTIAL)


@pytest.mark.feature("S2-46")
def test_retry_runs_the_failed_stage_again_as_a_whole_and_goes_on(here: Bench) -> None:  # S2-46
    stages = [stage("flaky"), stage("after", "flaky")]
    pipeline = here.pipeline(*stages, failure_strategy=OnFailure.RETRY)
    here.fail(here.at_work()["flaky"])

    again = here.at_work()["flaky"]
    here.finish(again)
    here.work_off()

    assert (again.attempts, again.fence) == (1, 2)
    assert here.ends(pipeline) == {"flaky": COMPLETED, "after": COMPLETED}
    assert here.job(pipeline).outcome is Outcome.SUCCESS


@pytest.mark.feature("S2-46")
def test_retry_stops_when_the_stage_has_failed_as_often_as_it_may(here: Bench) -> None:  # S2-46
    stages = [stage("bad"), stage("after", "bad")]
    pipeline = here.pipeline(*stages, failure_strategy=OnFailure.RETRY, stage_retries=2)

    runs = 0
    while at_work := here.at_work():
        runs += 1
        here.fail(at_work["bad"])

    assert runs == 3
    assert here.ends(pipeline) == {"bad": FAILED, "after": SKIPPED}
    assert here.families.counts("default", pipeline.id).failed == 1


def test_a_failed_stage_of_a_cancelled_pipeline_is_not_run_again(here: Bench) -> None:
    pipeline = here.pipeline(stage("bad"), failure_strategy=OnFailure.RETRY)
    here.fail(here.at_work()["bad"])

    here.control.cancel("default", pipeline.id, actor="test")

    assert here.at_work() == {}
    assert here.ends(pipeline) == {"bad": FAILED}


def test_a_stage_that_is_run_again_while_its_pipeline_is_paused_waits(here: Bench) -> None:
    pipeline = here.pipeline(stage("flaky"), failure_strategy=OnFailure.RETRY)
    flaky = here.at_work()["flaky"]
    here.control.pause("default", pipeline.id, actor="test")
    here.fail(flaky)

    while_paused = here.at_work()
    here.control.resume("default", pipeline.id, actor="test")
    here.work_off()

    assert while_paused == {}
    assert here.job(pipeline).state is JobState.COMPLETED


def test_a_paused_pipeline_starts_no_stage_until_it_is_resumed(here: Bench) -> None:
    pipeline = here.pipeline(stage("first"), stage("later", "first", value="{{ stages.first.result }}"))
    first = here.at_work()["first"]
    here.control.pause("default", pipeline.id, actor="test")
    here.finish(first)

    while_paused = here.at_work()
    here.control.resume("default", pipeline.id, actor="test")

    assert while_paused == {}
    assert here.at_work()["later"].config == {"value": {}}


def test_cancelling_a_pipeline_ends_what_waits_and_asks_what_runs(here: Bench) -> None:
    pipeline = here.pipeline(stage("first"), stage("later", "first"))
    first = here.at_work()["first"]

    here.control.cancel("default", pipeline.id, actor="test")

    assert here.ends(pipeline)["later"] == (JobState.CANCELLED, "parent")
    assert here.job(first).cancel_requested


@pytest.mark.feature("S2-48")
def test_a_pipeline_over_its_time_cancels_its_stages_with_that_reason(here: Bench, sessions: Sessions) -> None:  # S2-48
    pipeline = here.pipeline(stage("first"), stage("later", "first"), timeout_s=3600)
    here.at_work()
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET deadline_at = now() WHERE id = :id"), {"id": pipeline.id})

    ends = here.ends(pipeline)

    assert ends == {"first": (JobState.RUNNING, "timeout"), "later": (JobState.CANCELLED, "timeout")}
    assert here.job(pipeline).cancel_reason == "timeout"


@pytest.mark.feature("S2-57")
def test_a_pipeline_tells_which_stages_are_at_work_and_how_many_are_over(here: Bench) -> None:
    pipeline = here.pipeline(
        stage("first"), stage("left", "first"), stage("right", "first"), stage("last", "left", "right")
    )
    here.finish(here.at_work()["first"])
    here.tick()

    progress = here.job(pipeline).progress

    assert (progress.stage, progress.parts_done, progress.parts_total) == ("left, right", 1, 4)
    assert progress.percent(ended=False) == 25.0
    here.work_off()
    assert (here.job(pipeline).progress.stage, here.job(pipeline).progress.parts_done) == (None, 4)


def test_the_result_of_a_pipeline_holds_what_each_stage_came_to(here: Bench) -> None:
    pipeline = here.pipeline(stage("first"), stage("bad"), failure_strategy=OnFailure.CONTINUE)
    at_work = here.at_work()
    here.runs.complete(at_work["first"], Result({"rows": 3}))
    here.fail(at_work["bad"])
    here.tick()

    assert here.job(pipeline).result == {
        "stages": {"first": {"state": "completed", "result": {"rows": 3}}, "bad": {"state": "failed", "result": None}},
        "total": 2,
        "completed": 1,
        "failed": 1,
        "cancelled": 0,
    }


def test_results_that_are_too_large_are_left_out_of_the_pipelines_and_that_is_said(here: Bench) -> None:
    pipeline = here.pipeline(stage("small"), stage("large"))
    at_work = here.at_work()
    here.runs.complete(at_work["small"], Result({"rows": 3}))
    here.runs.complete(at_work["large"], Result({"text": "x" * MAX_RESULT_BYTES}))
    here.tick()

    result = here.job(pipeline).result or {}

    assert result["stages"] == {
        "small": {"state": "completed", "result": {"rows": 3}},
        "large": {"state": "completed", "result": None},
    }
    assert "left out" in result["capped"]


def test_a_stage_of_an_unknown_type_or_with_a_wrong_config_is_refused(here: Bench) -> None:
    for changed, pointer in (
        (Stage("a", "nothing", {}), "/stages/0/type"),
        (stage("a", wrong=1), "/stages/0/config/wrong"),
    ):
        with pytest.raises(InvalidRequestError) as raised:
            here.pipeline(changed)
        assert [problem.pointer for problem in raised.value.problems] == [pointer]
    assert here.sequence() == []


def test_every_event_of_a_pipeline_is_a_legal_move_counted_once(here: Bench) -> None:
    pipeline = here.pipeline(
        stage("a"), stage("b", "a", value="{{ stages.a.result }}"), failure_strategy=OnFailure.RETRY
    )
    here.fail(here.at_work()["a"])
    here.finish(here.at_work()["a"])
    here.fail(here.at_work()["b"])

    here.work_off()
    here.tick()

    counts = here.families.counts("default", pipeline.id)
    assert (counts.total, counts.completed, counts.pending) == (2, 2, 0)
    assert here.sequence() == list(range(1, len(here.sequence()) + 1))
