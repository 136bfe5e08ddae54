"""Document 002 on pipelines and dependencies, sentence by sentence, through the native API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.jobs import Job
from app.persistence.sessions import Sessions
from tests.integration.conftest import Client
from tests.integration.families import Installation

STAGES: Sequence[dict[str, Any]] = (
    {"name": "extract", "type": "echo", "config": {"value": {"delimiter": ","}}},
    {"name": "validate", "type": "echo", "depends_on": ["extract"]},
    {"name": "transform", "type": "echo", "depends_on": ["validate"]},
    {"name": "export", "type": "echo", "depends_on": ["transform"]},
)
OPTIONS: dict[str, Any] = {"failure_strategy": "stop-on-error", "parallelism": 2, "timeout_s": 1800}
ENRICH = {"name": "enrich", "type": "echo", "depends_on": ["extract"]}


class Bench(Installation):
    """A client of the native API, and an installation that takes a step when it is told to."""

    def __init__(self, sessions: Sessions, client: Client) -> None:
        super().__init__(sessions)
        self.client = client

    def pipeline(self, *stages: dict[str, Any], **options: Any) -> str:
        body = {"name": "customer-import-pipeline", "stages": stages, **OPTIONS, **options}
        answer = self.client.post("/v1/pipelines", body)
        assert answer.status_code == 202, answer.get_json()
        return str(answer.get_json()["id"])

    def submit(self, **options: Any) -> str:
        answer = self.client.post("/v1/jobs", {"type": "echo", **options})
        assert answer.status_code == 202, answer.get_json()
        return str(answer.get_json()["id"])

    def at_work(self) -> dict[str, Job]:
        """Claims what may run now, by its name or id."""
        self.tick()
        return {job.name or str(job.id): job for job in self.claim()}

    def job(self, job_id: str) -> dict[str, Any]:
        self.tick()
        found: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").get_json()
        return found

    def stages(self, pipeline: str) -> dict[str, str]:
        self.tick()
        found = self.client.get(f"/v1/jobs/{pipeline}/children").get_json()["items"]
        return {stage["name"]: stage["cancel_reason"] or stage["state"] for stage in found}


@pytest.fixture
def here(sessions: Sessions, admin: Client) -> Bench:
    return Bench(sessions, admin)


@pytest.mark.feature("S2-42", "S2-43")
def test_the_stages_of_the_documents_pipeline_run_one_after_the_other(here: Bench) -> None:  # S2-42 S2-43
    pipeline = here.pipeline(*STAGES)

    seen = []
    while at_work := here.at_work():
        seen += [*at_work]
        here.finish(*at_work.values())

    assert seen == ["extract", "validate", "transform", "export"]
    assert (here.job(pipeline)["state"], here.job(pipeline)["outcome"]) == ("completed", "success")


@pytest.mark.feature("S2-43")
def test_each_stage_shows_its_own_status_time_and_output(here: Bench) -> None:  # S2-43
    pipeline = here.pipeline(*STAGES)
    here.finish(here.at_work()["extract"])
    here.tick()

    extract, validate, *_ = here.client.get(f"/v1/jobs/{pipeline}/children").get_json()["items"]

    assert (extract["state"], extract["result"]) == ("completed", {})
    assert extract["finished_at"] > extract["started_at"]
    assert (validate["state"], validate["result"], validate["started_at"]) == ("queued", None, None)


@pytest.mark.feature("S2-44")
def test_stop_on_error_skips_the_later_stages_and_fails_the_pipeline(here: Bench) -> None:  # S2-44
    pipeline = here.pipeline(*STAGES)
    here.finish(here.at_work()["extract"])
    here.fail(here.at_work()["validate"])

    stages = here.stages(pipeline)

    assert stages == {"extract": "completed", "validate": "failed", "transform": "skipped", "export": "skipped"}
    assert here.job(pipeline)["state"] == "failed"


@pytest.mark.feature("S2-45")
def test_continue_runs_the_independent_stages_on(here: Bench) -> None:  # S2-45
    pipeline = here.pipeline(*STAGES, ENRICH, failure_strategy="continue")
    here.finish(here.at_work()["extract"])
    at_work = here.at_work()
    here.fail(at_work["validate"])
    here.finish(at_work["enrich"])

    stages = here.stages(pipeline)

    assert (stages["enrich"], stages["transform"], stages["export"]) == ("completed", "skipped", "skipped")
    assert (here.job(pipeline)["state"], here.job(pipeline)["outcome"]) == ("completed", "partial")


@pytest.mark.feature("S2-46")
def test_retry_runs_the_failed_stage_alone_again_and_then_stops(here: Bench) -> None:  # S2-46
    pipeline = here.pipeline(*STAGES, failure_strategy="retry", stage_retries=1)
    here.finish(here.at_work()["extract"])

    seen = []
    while at_work := here.at_work():
        seen += [*at_work]
        here.fail(*at_work.values())

    assert seen == ["validate", "validate"]
    assert here.stages(pipeline)["transform"] == "skipped"
    assert here.job(pipeline)["state"] == "failed"


@pytest.mark.feature("S2-47")
def test_never_more_stages_run_at_once_than_parallelism_says(here: Bench) -> None:  # S2-47
    here.pipeline(*({"name": f"part{n}", "type": "echo"} for n in range(5)), parallelism=2)

    assert here.work_off() == [2, 2, 1]


@pytest.mark.feature("S2-48")
def test_a_pipeline_over_its_thirty_minutes_ends_with_its_stages_for_that_reason(
    here: Bench, sessions: Sessions
) -> None:  # S2-48
    pipeline = here.pipeline(*STAGES)
    job = here.job(pipeline)
    limit = datetime.fromisoformat(job["deadline_at"]) - datetime.fromisoformat(job["created_at"])
    here.at_work()
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET deadline_at = now() WHERE id = :id"), {"id": UUID(pipeline)})

    stages = here.stages(pipeline)

    assert limit == timedelta(minutes=30)
    assert set(stages.values()) == {"timeout"}
    assert (here.job(pipeline)["state"], here.job(pipeline)["cancel_reason"]) == ("cancelled", "timeout")


@pytest.mark.feature("S2-51", "S2-57")
def test_the_current_stage_and_the_completion_percentage_are_shown(here: Bench) -> None:
    pipeline = here.pipeline(*STAGES)
    here.finish(here.at_work()["extract"])
    here.at_work()

    progress = here.job(pipeline)["progress"]

    assert (progress["stage"], progress["percent"]) == ("validate", 25.0)
    assert (progress["parts_done"], progress["parts_total"]) == (1, 4)


@pytest.mark.feature("S2-38", "S2-85")
def test_sequential_jobs_run_in_order(here: Bench) -> None:  # S2-38 S2-85
    extract = here.submit()
    map_ = here.submit(depends_on=[extract])
    export = here.submit(depends_on=[map_])

    seen = []
    while at_work := here.at_work():
        seen += [*at_work]
        here.finish(*at_work.values())

    assert seen == [extract, map_, export]


@pytest.mark.feature("S2-86", "S2-87")
def test_parallel_jobs_after_one_run_together_and_are_joined_before_the_last(here: Bench) -> None:  # S2-86 S2-87
    extract = here.submit()
    validation, enrichment = here.submit(depends_on=[extract]), here.submit(depends_on=[extract])
    export = here.submit(depends_on=[validation, enrichment])
    here.finish(*here.at_work().values())

    both = here.at_work()
    here.finish(both[validation])
    after_one = here.at_work()
    here.finish(both[enrichment])
    after_both = here.at_work()

    assert (set(both), set(after_one), set(after_both)) == ({validation, enrichment}, set(), {export})


@pytest.mark.feature("S2-87")
@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("fail", "failed"), ("run", "queued")])
def test_the_last_is_skipped_or_runs_by_rule_when_one_before_it_failed(
    here: Bench, policy: str, state: str
) -> None:  # S2-87
    validation, enrichment = here.submit(), here.submit()
    export = here.submit(depends_on=[validation, enrichment], on_dependency_failure=policy)
    at_work = here.at_work()
    here.fail(at_work[validation])
    here.finish(at_work[enrichment])

    assert here.job(export)["state"] == state


@pytest.mark.feature("S2-38")
def test_an_unknown_dependency_is_refused(here: Bench) -> None:  # S2-38
    unknown = "00000000-0000-7000-8000-000000000000"

    answer = here.client.post("/v1/jobs", {"type": "echo", "depends_on": [unknown]})

    assert (answer.status_code, answer.get_json()["code"]) == (404, "job.not_found")


@pytest.mark.feature("S2-04", "S2-61", "S2-63")
def test_the_parts_of_a_job_are_counted_by_how_they_ended(here: Bench) -> None:  # S2-04 S2-61 S2-63
    batch = here.client.post("/v1/batches", {"payloads": [{"type": "echo"}] * 4, "max_concurrency": 4}).get_json()["id"]
    one, two, three, _ = here.at_work().values()
    here.finish(one, two)
    here.fail(three)

    progress = here.job(batch)["progress"]

    counts = here.client.get(f"/v1/jobs/{batch}/children:count").get_json()
    failed = here.client.get(f"/v1/jobs/{batch}/children", query_string={"state": "failed"}).get_json()["items"]
    assert (counts["total"], counts["completed"], counts["failed"], counts["cancelled"]) == (4, 2, 1, 0)
    assert progress["percent"] == 75.0
    assert [job["id"] for job in failed] == [str(three.id)]
