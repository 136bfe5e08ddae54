"""What the feature list takes from document 004 of states, retries and lists, as clients of its dialect see it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import TransientError
from app.domain.jobs import Job, Priority
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import a_slot
from tests.integration.conftest import Client

INSERT = {"job_type": "insert_csv_file", "job_data": {"s3_key": "uploads/contacts.csv"}}
EXPORT = {"job_type": "export_csv_file", "job_data": {"service": "contact", "vql": {"select_columns": ["uuid"]}}}


class Runners:
    """Both of the document's runners, a step at a time."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._runs = Runs(sessions)
        self._slots = {queue: a_slot(sessions, queue) for queue in ("data", "retry")}

    def take(self) -> Job | None:
        """The next job that is due, with whichever runner it is for."""
        for queue, slot in self._slots.items():
            with self._sessions.begin() as session:
                admission.admit(session, queue, Priority.NORMAL, bound=100)
            if claimed := self._runs.claim(queue, slot, most=1, oldest=False):
                return claimed[0]
        return None

    def fail(self, message: str = "S3 hiccup") -> None:
        """Take a job, and fail."""
        job = self.take()
        assert job is not None
        self._runs.retry(job, TransientError(message))

    def make_due(self) -> None:
        """As if the time to wait were over."""
        with self._sessions.begin() as session:
            session.execute(text("UPDATE jobs SET due_at = now() WHERE state = 'retry_wait'"))


@pytest.fixture
def runners(sessions: Sessions) -> Runners:
    return Runners(sessions)


def create(client: Client, body: dict[str, Any] = INSERT, **more: Any) -> str:
    answer = client.post("/common/jobs/create", {**body, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["uuid"])


def shown(client: Client, uuid: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/common/jobs/{uuid}").get_json()["data"]
    return job


def listed(client: Client, **body: Any) -> list[str]:
    return [job["uuid"] for job in client.post("/common/jobs", body).get_json()["data"]]


@pytest.mark.feature("S4-12", "S4-40", "S4-48")
def test_a_job_that_is_not_dispatched_lists_as_open_under_an_id_of_ours(admin: Client) -> None:
    admin.post("/v1/queues/data:pause")

    uuid = create(admin, uuid="11111111-1111-1111-1111-111111111111")

    assert uuid != "11111111-1111-1111-1111-111111111111"
    assert (listed(admin, status=["open"]), listed(admin, status=["in_queue"])) == ([uuid], [])


@pytest.mark.feature("S4-46")
def test_a_job_that_runs_again_is_found_as_retrying_and_shown_as_processing(member: Client, runners: Runners) -> None:
    uuid = create(member, retry_count=1, retry_interval=0)
    create(member)
    runners.fail()

    first, again = runners.take(), runners.take()

    assert {str(job.id) for job in (first, again) if job} == set(listed(member, status=["processing"]))
    assert listed(member, status=["retrying"]) == [uuid]
    assert shown(member, uuid)["status"] == "processing"


@pytest.mark.feature("S4-103", "S4-131")
@pytest.mark.parametrize(("retry_count", "starts"), [(0, 1), (3, 4)])
def test_a_job_runs_once_more_than_it_may_be_retried(
    member: Client, runners: Runners, retry_count: int, starts: int
) -> None:
    uuid = create(member, retry_count=retry_count, retry_interval=0)

    for _ in range(starts):
        runners.fail()

    assert runners.take() is None
    job = shown(member, uuid)
    assert (job["status"], job["run_after"], job["retries"]) == ("failed", None, retry_count)


@pytest.mark.feature("S4-51")
def test_the_retry_count_is_echoed_beside_the_retries_made(member: Client, runners: Runners) -> None:
    none_given, two_given = create(member), create(member, retry_count=2, retry_interval=0)
    runners.fail()
    runners.fail()
    runners.fail()

    counts = [(job["retry_count"], job["retries"]) for job in (shown(member, none_given), shown(member, two_given))]

    assert counts == [(0, 0), (2, 1)]


@pytest.mark.feature("S4-03", "S4-53", "S4-102")
def test_a_failed_job_is_due_again_after_its_interval(member: Client, runners: Runners) -> None:
    uuid = create(member, retry_count=1, retry_interval=2)
    before = shown(member, uuid)["run_after"]

    runners.fail()

    failed = member.get(f"/v1/jobs/{uuid}/events").get_json()["items"][-1]
    waited = datetime.fromisoformat(shown(member, uuid)["run_after"]) - datetime.fromisoformat(failed["at"])
    assert (before, failed["type"]) == (None, "job.retrying")
    assert abs(waited - timedelta(seconds=2)) < timedelta(seconds=1)


@pytest.mark.feature("S4-74", "S4-104")
def test_a_failed_job_is_not_taken_before_it_is_due_and_each_failure_moves_that(
    member: Client, runners: Runners
) -> None:
    uuid = create(member, retry_count=2, retry_interval=10)
    runners.fail()
    first = shown(member, uuid)
    too_early = runners.take()
    runners.make_due()

    runners.fail()

    second = shown(member, uuid)
    assert too_early is None
    assert (first["status"], second["status"]) == ("failed", "failed")
    assert datetime.fromisoformat(second["run_after"]) > datetime.fromisoformat(first["run_after"])


@pytest.mark.feature("S4-55")
def test_the_last_runtime_errors_are_listed_newest_last(member: Client, runners: Runners) -> None:
    uuid = create(member, retry_count=30, retry_interval=0)
    for number in range(25):
        runners.fail(f"failure {number}")

    errors = shown(member, uuid)["job_response"]["runtime_errors"]

    assert errors == [f"failure {number}" for number in range(5, 25)]


@pytest.mark.feature("S4-63", "S4-64", "S4-66")
def test_a_list_is_of_one_type_or_of_the_union_of_statuses_in_the_documents_envelope(
    member: Client, runners: Runners
) -> None:
    failed = create(member)
    runners.fail()
    queued, export = create(member), create(member, EXPORT)
    runners.take()

    answer = member.post("/common/jobs", {"status": ["in_queue", "failed"]})

    assert [job["uuid"] for job in answer.get_json()["data"]] == [export, failed]
    assert (set(answer.get_json()), answer.get_json()["success"]) == ({"data", "success"}, True)
    assert listed(member, status=["processing"]) == [queued]
    assert listed(member, job_type="export_csv_file") == [export]
    assert "success" not in member.get("/v1/jobs").get_json()


@pytest.mark.feature("S4-19")
def test_an_import_without_a_key_is_refused_at_creation(member: Client) -> None:
    answer = member.post("/common/jobs/create", {"job_type": "insert_csv_file", "job_data": {"s3_bucket": "b"}})

    assert answer.status_code == 400
    assert "/config/s3_key" in answer.get_json()["error"]
