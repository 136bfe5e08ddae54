"""What the feature list says of every job: what it shows while it lives, how it is found, and which moves are legal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.lifecycle import TRANSITIONS, JobState
from app.domain.ports import ObjectStore
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from config.settings import Settings
from tasks.context import RunContext
from tests.factories import a_request, a_service, a_slot
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt


def submit(client: Client, **body: Any) -> str:
    answer = client.post("/v1/jobs", {"type": "echo", **body})
    assert answer.status_code == 202, answer.get_json()
    return str(answer.get_json()["id"])


def shown(client: Client, job_id: str) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").get_json()
    return body


def claimed(sessions: Sessions) -> Job:
    [job] = Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)
    return job


def advance(sessions: Sessions, job: Job, **what: Any) -> None:
    with sessions.begin() as session:
        jobs.advance(session, job, **what)


@pytest.mark.feature("S0-08", "S0-13", "S0-14", "S2-02", "S2-51", "S4-54")
def test_a_job_shows_how_far_it_is_from_its_creation_to_its_end(member: Client, sessions: Sessions) -> None:
    job_id = submit(member)
    seen = [shown(member, job_id)]
    job = claimed(sessions)
    for rows in (10, 40, 100):
        advance(sessions, job, rows_done=rows, rows_total=100, stage="loading")
        seen.append(shown(member, job_id))
    Runs(sessions).complete(job, Result())

    seen.append(shown(member, job_id))

    assert [one["state"] for one in seen] == ["queued", "running", "running", "running", "completed"]
    assert [one["progress"]["rows_done"] for one in seen] == [0, 10, 40, 100, 100]
    assert [one["progress"]["percent"] for one in seen] == [0, 10, 40, 99.9, 100]
    assert seen[1]["progress"]["stage"] == "loading"
    assert all(before["updated_at"] < after["updated_at"] for before, after in pairwise(seen))


@pytest.mark.feature("S2-53")
def test_a_job_shows_its_times_and_how_long_it_took(member: Client, sessions: Sessions) -> None:
    job_id = submit(member)
    waiting = shown(member, job_id)
    job = claimed(sessions)
    running = shown(member, job_id)
    Runs(sessions).complete(job, Result())

    ended = shown(member, job_id)

    created, started, finished = (
        datetime.fromisoformat(ended[f"{what}_at"]) for what in ("created", "started", "finished")
    )
    assert (waiting["started_at"], waiting["duration_ms"]) == (None, None)
    assert (running["finished_at"], running["duration_ms"] >= 0) == (None, True)
    assert created <= started <= finished
    assert ended["duration_ms"] == pytest.approx((finished - started) / timedelta(milliseconds=1), abs=1)


@pytest.mark.feature("S0-32", "S4-05")
def test_every_change_of_a_job_is_one_line_of_a_trail_that_leads_to_its_state(
    member: Client, sessions: Sessions
) -> None:
    job_id = submit(member)
    states = []
    for step in ("pause", "resume", "cancel", "retry", "cancel"):
        member.post(f"/v1/jobs/{job_id}:{step}")
        states.append(shown(member, job_id)["state"])

    trail = member.get(f"/v1/jobs/{job_id}/events").get_json()["items"]

    assert states == ["open", "open", "cancelled", "open", "cancelled"]
    assert [event["number"] for event in trail] == list(range(1, len(trail) + 1))
    assert [event["source"] for event in trail] == [None, *(event["target"] for event in trail[:-1])]
    assert trail[-1]["target"] == states[-1]
    assert trail[-1]["data"] == {"reason": "user"}
    assert all(event["at"] and event["actor"].startswith("key:") for event in trail)


@pytest.mark.feature("S4-47")
def test_the_database_takes_no_move_but_the_legal_ones(sessions: Sessions) -> None:
    job_id = a_service(sessions).submit(a_request()).job.id

    taken = set()
    for event, state in product(TRANSITIONS, JobState):
        with sessions.begin() as session:
            session.execute(text("UPDATE jobs SET state = :state WHERE id = :id"), {"state": state, "id": job_id})
            jobs.move(session, "default", job_id, event, actor="test")
            if (now := jobs.get(session, "default", job_id).state) is not state:
                taken.add((event, state, now))

    assert taken == {(event, state, move.target) for event, move in TRANSITIONS.items() for state in move.sources}


@pytest.mark.feature("S1-11")
def test_ids_are_uuids_in_the_order_of_time_and_none_comes_twice(member: Client) -> None:
    ids = [UUID(submit(member)) for _ in range(20)]

    assert {one.version for one in ids} == {7}
    assert ids == sorted(set(ids))


@pytest.mark.feature("S1-17")
def test_a_job_is_found_by_its_type(member: Client) -> None:
    submit(member)
    sleeps = submit(member, type="sleep")

    found = member.get("/v1/jobs?type=sleep").get_json()["items"]

    assert [(job["id"], job["type"]) for job in found] == [(sleeps, "sleep")]


@pytest.fixture
def started(member: Client, sessions: Sessions) -> list[str]:
    """Jobs that began at six, seven and eight o'clock."""
    ids = [submit(member) for _ in range(3)]
    for hour, job_id in enumerate(ids, start=6):
        with sessions.begin() as session:
            session.execute(
                text("UPDATE jobs SET started_at = :at WHERE id = :id"),
                {"at": datetime(2091, 1, 25, hour, tzinfo=UTC), "id": job_id},
            )
    return ids


@pytest.mark.feature("S1-20")
def test_a_window_finds_exactly_the_jobs_that_started_inside_it(member: Client, started: list[str]) -> None:
    window = {"started_from": "2091-01-25T07:00:00Z", "started_until": "2091-01-25T08:00:00Z"}

    found = member.get("/v1/jobs", query_string=window).get_json()["items"]

    assert [job["id"] for job in found] == [started[1]]


@pytest.mark.feature("S1-21")
def test_an_instant_may_be_told_in_any_zone_but_not_without_one(member: Client, started: list[str]) -> None:
    told = ["2091-01-25T06:30:00.000+0000", "2091-01-25T06:30:00Z", "2091-01-25T12:00:00+05:30"]

    found = [member.get("/v1/jobs", query_string={"started_from": at}).get_json()["items"] for at in told]
    naive = member.get("/v1/jobs", query_string={"started_from": "2091-01-25T06:30:00"})

    assert [[job["id"] for job in page] for page in found] == [[started[2], started[1]]] * 3
    assert (naive.status_code, naive.get_json()["errors"][0]["pointer"]) == (422, "?started_from")


@pytest.mark.feature("S1-18")
def test_a_job_says_whose_key_made_it_whatever_the_body_says(member: Client) -> None:
    made_by = shown(member, submit(member))["created_by"]

    refused = member.post("/v1/jobs", {"type": "echo", "created_by": "somebody"})

    assert made_by == f"key:{(member.key or '').split('_')[1]}"
    assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "/created_by")


@pytest.mark.feature("S2-60")
def test_a_hundred_jobs_are_read_at_once_in_the_order_asked(member: Client, sessions: Sessions) -> None:
    service = a_service(sessions)
    ids = [str(service.submit(a_request()).job.id) for _ in range(99)]
    asked = [*ids[50:], str(uuid4()), *ids[:50]]

    items = member.post("/v1/jobs:batchGet", {"ids": asked}).get_json()["items"]

    assert [item["id"] for item in items] == asked
    assert [item["id"] for item in items if item["job"] is None] == [asked[49]]


@pytest.mark.feature("S2-71")
def test_every_failure_of_a_job_is_told_with_its_time_in_pages(member: Client, sessions: Sessions) -> None:
    job_id = submit(member, retry={"maximum_attempts": 3, "initial_interval": 0, "transient_only": False})
    for number in range(3):
        Runs(sessions).retry(_claimed_again(sessions), JobError(f"failure {number}", code=f"test.{number}"))

    path = f"/v1/jobs/{job_id}/errors?limit=2"
    first = member.get(path).get_json()
    second = member.get(f"{path}&after={first['next_after']}").get_json()

    told = [(one["attempt"], one["code"], one["message"]) for one in (*first["items"], *second["items"])]
    assert told == [(1, "test.0", "failure 0"), (2, "test.1", "failure 1"), (3, "test.2", "failure 2")]
    assert first["items"][0]["at"] < second["items"][0]["at"]


def _claimed_again(sessions: Sessions) -> Job:
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'queued', admitted_at = now() WHERE state = 'retry_wait'"))
    return claimed(sessions)


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    """One whose heart beats four times a second."""
    worker = Worker(sessions, settings.model_copy(update={"lease_s": 1.0}), objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def waits(job: RunContext) -> None:
    job.wait(60)


@pytest.mark.feature("S0-11")
def test_a_running_job_that_is_cancelled_says_who_did_it(worker: Worker, member: Client) -> None:
    job_id = worker.submit(lambda job: (member.post(f"/v1/jobs/{job.id}:cancel"), waits(job))[1])

    attempt(worker)

    job = shown(member, str(job_id))
    trail = member.get(f"/v1/jobs/{job_id}/events").get_json()["items"]
    [asked] = [event for event in trail if event["type"] == "job.cancel_requested"]
    assert (job["state"], job["cancel_reason"]) == ("cancelled", "user")
    assert asked["actor"] == f"key:{(member.key or '').split('_')[1]}"


@pytest.mark.feature("S0-12", "S2-41")
def test_a_job_past_its_time_is_cancelled_and_its_slot_is_free_again(worker: Worker, member: Client) -> None:
    late, following = worker.submit(waits, timeout_s=0.3), worker.submit(lambda job: Result())

    attempt(worker)
    attempt(worker)

    job = shown(member, str(late))
    assert (job["state"], job["cancel_reason"]) == ("cancelled", "timeout")
    assert worker.state(following) is JobState.COMPLETED


@pytest.mark.feature("S2-34")
def test_an_attempt_past_its_time_fails_as_one_that_may_pass(worker: Worker, member: Client) -> None:
    job_id = worker.submit(waits, attempt_timeout_s=0.3)

    attempt(worker)

    job = shown(member, str(job_id))
    assert (job["state"], job["attempts"]) == ("retry_wait", 1)
    assert job["error"]["message"].startswith("the attempt ran longer than its 0.3 s")
