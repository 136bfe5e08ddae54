"""Batches and pipelines that wait for other jobs, of whatever kind."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.domain.errors import NotFoundError
from app.domain.jobs import Job, OnDependencyFailure
from app.domain.lifecycle import JobState
from app.domain.pipelines import Stage
from app.domain.waiting import Cause, why
from app.persistence import waiting
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from app.services.families import Payload, SubmitBatch
from app.services.pipelines import SubmitPipeline
from tests.factories import a_request
from tests.integration.conftest import Client
from tests.integration.families import Installation

DONE, CANCELLED = JobState.COMPLETED, JobState.CANCELLED
KINDS = pytest.mark.parametrize("kind", ["batch", "pipeline"])


class Bench(Installation):
    """An installation with families of two."""

    def family(self, kind: str, *needs: Job, tenant: str = "default", **options: Any) -> Job:
        options["depends_on"] = tuple(need.id for need in needs)
        if kind == "batch":
            payloads = [Payload("echo", {}, name=name) for name in ("one", "two")]
            return self.families.create_batch(SubmitBatch(tenant, payloads, "test", **options)).job
        stages = [Stage("one", "echo", {}), Stage("two", "echo", {}, ("one",))]
        return self.pipelines.create(SubmitPipeline(tenant, "test", stages, "test", **options)).job

    def a_job(self, *needs: Job) -> Job:
        return self.jobs.submit(a_request(depends_on=tuple(need.id for need in needs))).job

    def all(self, family: Job) -> list[JobState]:
        """The states of a family and its children."""
        return [self.state(family.id), *(child.state for child in self.children(family.id).values())]


@pytest.fixture
def here(sessions: Sessions) -> Bench:
    return Bench(sessions)


@pytest.mark.feature("S2-38")
@KINDS
def test_a_family_begins_when_all_it_waits_for_have_completed(here: Bench, kind: str) -> None:
    first = here.a_job()
    (held,) = here.claim()
    before = here.family("batch")
    family = here.family(kind, first, before)

    here.finish(held)
    here.tick()
    with_one_left = here.state(family.id)
    here.work_off()

    assert with_one_left is JobState.BLOCKED
    assert here.all(family) == [DONE, DONE, DONE]


@pytest.mark.feature("S2-85")
@KINDS
def test_a_job_a_batch_and_a_pipeline_follow_each_other(here: Bench, kind: str) -> None:
    first = here.family(kind)
    second = here.family("pipeline", first)
    last = here.a_job(second)

    here.work_off()

    ends = [here.jobs.get("default", job.id).finished_at for job in (first, second, last)]
    assert None not in ends
    assert ends == sorted(ends, key=str)


@KINDS
@pytest.mark.parametrize("is_over", [False, True], ids=["later", "before"])
@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (OnDependencyFailure.CANCEL, CANCELLED),
        (OnDependencyFailure.FAIL, JobState.FAILED),
        (OnDependencyFailure.RUN, DONE),
    ],
)
def test_the_policy_says_what_a_failed_need_does_to_a_family(
    here: Bench, kind: str, policy: OnDependencyFailure, state: JobState, *, is_over: bool
) -> None:
    first = here.a_job()
    (held,) = here.claim()
    if is_over:
        here.fail(held)
    family = here.family(kind, first, on_dependency_failure=policy)
    if not is_over:
        here.fail(held)

    here.work_off()

    children = DONE if state is DONE else CANCELLED
    assert here.all(family) == [state, children, children]
    assert {job.cancel_reason for job in here.children(family.id).values()} == {None if state is DONE else "skipped"}
    assert here.families.counts("default", family.id).pending == 0


@KINDS
def test_a_family_that_was_skipped_can_be_retried(here: Bench, kind: str) -> None:
    first = here.a_job()
    family = here.family(kind, first)
    here.fail(*here.claim())
    here.tick()

    here.control.retry("default", family.id, actor="test")
    here.work_off()

    assert here.all(family) == [DONE, DONE, DONE]


@KINDS
def test_a_family_that_waits_can_be_cancelled(here: Bench, kind: str) -> None:
    first = here.a_job()
    family = here.family(kind, first)

    here.control.cancel("default", family.id, actor="test")
    here.work_off()

    assert here.all(family) == [CANCELLED, CANCELLED, CANCELLED]


@KINDS
def test_a_family_that_was_paused_while_it_waits_begins_when_it_is_resumed(here: Bench, kind: str) -> None:
    first = here.a_job()
    family = here.family(kind, first)

    here.control.pause("default", family.id, actor="test")
    here.work_off()
    while_paused = here.all(family)
    here.control.resume("default", family.id, actor="test")
    here.work_off()

    assert while_paused == [JobState.OPEN, JobState.BLOCKED, JobState.BLOCKED]
    assert here.all(family) == [DONE, DONE, DONE]


@KINDS
def test_a_family_whose_time_is_over_while_it_waits_is_cancelled(here: Bench, sessions: Sessions, kind: str) -> None:
    first = here.a_job()
    family = here.family(kind, first, timeout_s=3600)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET deadline_at = now() WHERE id = :id"), {"id": family.id})

    here.tick()

    assert here.all(family) == [CANCELLED, CANCELLED, CANCELLED]
    assert here.jobs.get("default", family.id).cancel_reason == "timeout"


def test_a_batch_that_waits_takes_more_payloads_and_says_for_what_it_waits(here: Bench, sessions: Sessions) -> None:
    first = here.a_job()
    batch = here.family("batch", first)

    here.families.extend("default", batch.id, [Payload("echo", {}, name="three")])
    with sessions.begin() as session:
        facts = waiting.facts(session, "default", batch.id, class_bound=10)
    here.work_off()

    assert facts is not None
    assert [(one.cause, one.data) for one in why(facts).reasons] == [(Cause.DEPENDENCY, {"job_ids": [str(first.id)]})]
    assert here.all(batch) == [DONE, DONE, DONE, DONE]


@KINDS
def test_a_family_of_another_tenants_job_is_not_stored(here: Bench, sessions: Sessions, kind: str) -> None:
    with sessions.begin() as session:
        add_tenant(session, "acme")
    foreign = here.family("batch", tenant="acme")
    before = here.sequence()

    with pytest.raises(NotFoundError):
        here.family(kind, foreign)

    assert here.sequence() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batches", {"payloads": [{"type": "echo"}]}),
        ("/v1/pipelines", {"name": "nightly", "stages": [{"name": "one", "type": "echo"}]}),
    ],
)
def test_a_family_is_asked_to_wait_as_a_job_is(admin: Client, path: str, body: dict[str, Any]) -> None:
    first = admin.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    waits = {"depends_on": [first, first], "on_dependency_failure": "run"}

    family = admin.post(path, {**body, **waits}).get_json()
    gone = admin.post(path, {**body, "depends_on": [str(uuid4())]})
    wrong = admin.post(path, {**body, "depends_on": ["x"], "on_dependency_failure": "hope"})

    assert (family["state"], family["needs_left"], UUID(family["id"]).version) == ("blocked", 1, 7)
    assert (gone.status_code, gone.get_json()["code"]) == (404, "job.not_found")
    assert {one["pointer"] for one in wrong.get_json()["errors"]} == {"/depends_on/0", "/on_dependency_failure"}


def test_a_template_of_a_schedule_waits_for_no_job(admin: Client) -> None:
    template = {"type": "batch", "payloads": [{"type": "echo"}], "depends_on": [str(uuid4())]}

    answer = admin.post("/v1/schedules", {"name": "nightly", "template": template})

    assert [one["pointer"] for one in answer.get_json()["errors"]] == ["/template/depends_on"]
