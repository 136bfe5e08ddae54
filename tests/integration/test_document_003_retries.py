"""Document 003 on retry policies, sentence by sentence, through the native API."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.errors import JobError, TransientError
from app.domain.lifecycle import JobState
from app.persistence.sessions import Sessions
from tests.integration.conftest import Client
from tests.integration.families import Installation

NO_DELAY = {"maximum_attempts": 3, "initial_interval": 0, "transient_only": False, "jitter": False}


@pytest.fixture
def installation(sessions: Sessions) -> Installation:
    return Installation(sessions)


def post_batch(member: Client, *payloads: dict[str, Any], **options: Any) -> UUID:
    answer = member.post("/v1/batches", {"payloads": [{"type": "echo", **one} for one in payloads], **options})
    assert answer.status_code == 202, answer.get_json()
    return UUID(answer.get_json()["id"])


def payloads_of(member: Client, batch: UUID) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = member.get(f"/v1/jobs/{batch}/children").get_json()["items"]
    return items


def run_failing(installation: Installation, *, rounds: int = 10) -> list[int]:
    """Every attempt fails; how many payloads ran in each round, with those that wait for a retry due at once."""
    sizes = []
    for _ in range(rounds):
        installation.tick()
        claimed = installation.claim()
        sizes.append(len(claimed))
        for job in claimed:
            installation.runs.retry(job, JobError("no", code="test.no"))
        with installation.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET run_after = now() WHERE state = 'retry_wait'"))
    return [size for size in sizes if size]


@pytest.mark.feature("S3-21", "S3-22")
def test_maximum_attempts_of_the_job_is_the_number_of_times_a_payload_runs(
    member: Client, installation: Installation
) -> None:
    """The document: "The job-level maximum number of attempts to run a payload."."""
    batch = post_batch(member, {}, retry=NO_DELAY)

    ran = run_failing(installation)

    [payload] = payloads_of(member, batch)
    assert (len(ran), payload["attempts"], payload["state"]) == (3, 3, "failed")
    assert member.get(f"/v1/jobs/{batch}").get_json()["config"]["retry"]["maximum_attempts"] == 3


@pytest.mark.feature("S3-23")
def test_a_payload_overrides_the_jobs_number_and_keeps_the_rest_of_its_policy(
    member: Client, installation: Installation
) -> None:
    """The document: "This value can be overridden by the payload."."""
    batch = post_batch(member, {"retry": {"maximum_attempts": 1}}, {}, retry=NO_DELAY)

    run_failing(installation)

    once, thrice = payloads_of(member, batch)
    assert (once["attempts"], thrice["attempts"]) == (1, 3)
    assert once["retry"] == {**thrice["retry"], "maximum_attempts": 1}


@pytest.mark.feature("S3-21")
def test_payloads_that_are_added_later_have_the_jobs_policy_too(member: Client, installation: Installation) -> None:
    batch = post_batch(member, {}, retry=NO_DELAY)

    member.post(f"/v1/jobs/{batch}/children", {"payloads": [{"type": "echo"}]})

    first, added = payloads_of(member, batch)
    assert first["retry"] == added["retry"]


@pytest.mark.feature("S3-24")
@pytest.mark.parametrize(
    ("written", "interval_ms"), [(1500, 1500), ("1.5s", 1500), ("2m", 120_000), ("300", 300), ("7d", 604_800_000)]
)
def test_an_interval_is_a_number_of_milliseconds_or_a_text(member: Client, written: object, interval_ms: int) -> None:
    """The document: "as milliseconds or an ms-formatted string"."""
    retry = {"initial_interval": written, "maximum_interval": written}

    job = member.post("/v1/jobs", {"type": "echo", "retry": retry}).get_json()

    assert (job["retry"]["initial_interval"], job["retry"]["maximum_interval"]) == (interval_ms, interval_ms)


@pytest.mark.feature("S3-25", "S3-26", "S3-27")
def test_the_time_to_wait_is_the_calculated_interval_up_to_the_maximum(
    member: Client, installation: Installation
) -> None:
    """The document: "timeToWait = min(calculatedInterval, maximumInterval)"."""
    retry = {"maximum_attempts": 5, "initial_interval": "1s", "backoff_coefficient": 3, "maximum_interval": "10s"}
    batch = post_batch(member, {"retry": {**retry, "jitter": False, "transient_only": False}})

    run_failing(installation)

    [payload] = payloads_of(member, batch)
    events = member.get(f"/v1/jobs/{payload['id']}/events").get_json()["items"]
    assert [event["data"]["wait_s"] for event in events if event["type"] == "job.retrying"] == [1, 3, 9, 10]


@pytest.mark.feature("S3-21")
def test_a_schedules_template_keeps_its_policy_and_gives_it_to_every_job(
    member: Client, installation: Installation
) -> None:
    template = {"type": "echo", "retry": {"maximum_attempts": 7, "initial_interval": "5s"}}
    made = member.post("/v1/schedules", {"name": "on demand", "template": template}).get_json()

    job = member.post(f"/v1/schedules/{made['id']}:trigger").get_json()

    assert made["template"]["retry"] == job["retry"]
    assert (job["retry"]["maximum_attempts"], job["retry"]["initial_interval"]) == (7, 5000)


@pytest.mark.feature("S3-13")
def test_a_payload_that_is_paused_is_not_retried_before_it_is_resumed(
    member: Client, installation: Installation
) -> None:
    """The document: "running payloads will continue to run, but won't be retried"."""
    batch = post_batch(member, {}, retry=NO_DELAY)
    installation.tick()
    [running] = installation.claim()
    member.post(f"/v1/jobs/{batch}:pause")
    installation.runs.retry(running, TransientError("busy"))

    installation.tick()
    while_paused = installation.claim()
    member.post(f"/v1/jobs/{batch}:resume")
    installation.tick()

    assert while_paused == []
    assert installation.state(running.id) is JobState.QUEUED


@pytest.mark.feature("S3-29")
def test_a_payload_that_waits_for_its_retry_lets_the_next_one_start_at_once(
    member: Client, installation: Installation
) -> None:
    """The document: "continue to process other payloads while the retries are pending"."""
    batch = post_batch(member, {"retry": {"initial_interval": "60s", "jitter": False}}, {}, max_concurrency=1)
    installation.tick()
    [first] = installation.claim()
    installation.runs.retry(first, TransientError("busy"))

    installation.tick()
    [second] = installation.claim()

    assert [payload["state"] for payload in payloads_of(member, batch)] == ["retry_wait", "running"]
    assert second.child_no == 1


@pytest.mark.feature("S3-30")
def test_retries_that_are_due_stay_within_the_payloads_that_may_run_at_once(
    member: Client, installation: Installation
) -> None:
    """The document: "controls at most how many payloads can run at the same time"."""
    batch = post_batch(member, *[{}] * 6, max_concurrency=2, retry=NO_DELAY)

    sizes = run_failing(installation, rounds=20)

    assert max(sizes) == 2
    assert [payload["attempts"] for payload in payloads_of(member, batch)] == [3] * 6
