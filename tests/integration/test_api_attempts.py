"""Every attempt at a job over HTTP, with what came of it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import TransientError
from app.domain.job_types import Result
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services.runs import give_back
from tests.integration.conftest import Client
from tests.integration.families import Installation

AT_ONCE = {"initial_interval": 0, "jitter": False}


@pytest.fixture
def installation(sessions: Sessions) -> Installation:
    return Installation(sessions)


def submit(member: Client) -> str:
    job_id: str = member.post("/v1/jobs", {"type": "echo", "retry": AT_ONCE}).get_json()["id"]
    return job_id


def attempts_of(client: Client, job_id: str, **query: Any) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/v1/jobs/{job_id}/attempts", query_string=query).get_json()
    return body


def claim_again(installation: Installation) -> Any:
    installation.tick()
    [job] = installation.claim()
    return job


@pytest.mark.feature("S2-75", "S3-10")
def test_a_job_shows_every_attempt_and_rescue_with_worker_error_times_and_rows(
    member: Client, installation: Installation
) -> None:
    job_id = submit(member)
    lost = claim_again(installation)
    with installation.sessions.begin() as session:
        give_back(session, lost, "its worker's lease lapsed", actor="engine", max_rescues=5)
    failing = claim_again(installation)
    with installation.sessions.begin() as session:
        jobs.advance(session, failing, rows_done=40)
    installation.runs.retry(failing, TransientError("S3 hiccup", code="s3.away", hint="Wait."))
    handed_back = claim_again(installation)
    installation.runs.hand_back(handed_back, "worker shuts down")
    done = claim_again(installation)
    with installation.sessions.begin() as session:
        jobs.advance(session, done, rows_done=100)
    installation.runs.complete_all([(done, Result())])

    items = attempts_of(member, job_id)["items"]

    seen = [(one["fence"], one["attempt"], one["is_counted"], one["outcome"], one["rows_done"]) for one in items]
    assert seen == [
        (1, 1, False, "rescued", 0),
        (2, 1, True, "retrying", 40),
        (3, 2, False, "handed_back", 40),
        (4, 2, True, "completed", 100),
    ]
    assert [one["reason"] for one in items] == ["its worker's lease lapsed", None, "worker shuts down", None]
    assert items[1]["error"] == {"code": "s3.away", "message": "S3 hiccup", "hint": "Wait.", "attempt": 1}
    assert items[1]["wait_s"] == 0
    assert {(one["worker"], one["worker_name"]) for one in items} == {(str(installation.slot), "worker")}
    assert all(one["started_at"] <= one["ended_at"] for one in items)
    assert member.get(f"/v1/jobs/{job_id}").get_json()["starts"] == 4


def test_an_attempt_that_runs_has_no_end(member: Client, installation: Installation) -> None:
    job_id = submit(member)
    claim_again(installation)

    [running] = attempts_of(member, job_id)["items"]

    assert (running["outcome"], running["ended_at"], running["error"]) == ("running", None, None)


@pytest.mark.feature("S2-73")
def test_attempts_of_a_job_that_was_opened_again_go_on_behind_the_old_ones(
    member: Client, installation: Installation
) -> None:
    job_id = submit(member)
    installation.fail(claim_again(installation))
    member.post(f"/v1/jobs/{job_id}:retry")
    installation.finish(claim_again(installation))

    items = attempts_of(member, job_id)["items"]

    assert [(one["fence"], one["attempt"], one["outcome"]) for one in items] == [
        (1, 1, "failed"),
        (2, 1, "completed"),
    ]


def test_attempts_come_in_pages(member: Client, installation: Installation) -> None:
    job_id = submit(member)
    for _ in range(2):
        installation.runs.retry(claim_again(installation), TransientError("busy"))
        with installation.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET due_at = now()"))
    claim_again(installation)

    first = attempts_of(member, job_id, limit=2)
    rest = attempts_of(member, job_id, limit=2, after=first["next_after"])

    assert [one["fence"] for one in first["items"]] == [1, 2]
    assert ([one["fence"] for one in rest["items"]], rest["next_after"]) == ([3], None)


def test_another_tenants_attempts_are_not_there(member: Client, stranger: Client, installation: Installation) -> None:
    job_id = submit(member)

    assert stranger.get(f"/v1/jobs/{job_id}/attempts").status_code == 404
