"""Many independent jobs in one request: all of them, or none."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.domain.errors import ConflictError
from app.domain.job_types import CHEAP_AT_ONCE
from app.domain.jobs import Priority
from app.domain.lifecycle import JobState
from app.persistence import new_jobs
from app.persistence.sessions import Sessions
from app.services import bulk
from app.services.bulk import Bulk, SubmittedMany, Variant
from tests.factories import RecordingBell, a_request, a_service, in_threads
from tests.integration.conftest import Client

ECHO = {"type": "echo"}


def a_bulk(sessions: Sessions, *, queue_bound: int = 100, bell: RecordingBell | None = None) -> Bulk:
    bell = bell or RecordingBell()
    return Bulk(sessions, bell, a_service(sessions, bell=bell, queue_bound=queue_bound))


def many(count: int) -> list[Variant]:
    return [Variant(a_request(), {}) for _ in range(count)]


def stored(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return int(session.execute(text("SELECT count(*) FROM jobs")).scalar_one())


def test_each_job_of_a_request_is_a_job_of_its_own_in_the_requests_order(member: Client) -> None:
    answer = member.post("/v1/jobs:batch", {"jobs": [{**ECHO, "config": {"value": place}} for place in range(5)]})

    jobs = [member.get(f"/v1/jobs/{job_id}").get_json() for job_id in answer.get_json()["ids"]]
    assert answer.status_code == 202
    assert [job["config"] for job in jobs] == [{"value": place} for place in range(5)]
    assert {(job["state"], job["parent_id"]) for job in jobs} == {("queued", None)}
    assert [job["number"] for job in jobs] == sorted(job["number"] for job in jobs)


def test_jobs_keep_the_options_that_each_of_them_was_given(member: Client) -> None:
    asked = [{**ECHO, "priority": "high"}, ECHO, {**ECHO, "labels": {"run": "a"}}, {**ECHO, "retry": None}, ECHO]

    ids = member.post("/v1/jobs:batch", {"jobs": asked}).get_json()["ids"]

    jobs = [member.get(f"/v1/jobs/{job_id}").get_json() for job_id in ids]
    assert [job["priority"] for job in jobs] == ["high", "normal", "normal", "normal", "normal"]
    assert [job["labels"] for job in jobs] == [{}, {}, {"run": "a"}, {}, {}]


def test_jobs_of_several_kinds_stand_in_the_requests_order_with_their_own_labels(member: Client) -> None:
    kinds: list[dict[str, Any]] = [{"priority": "high"}, {}, {"labels": {}}]
    asked = [
        {**ECHO, "labels": {"n": str(place)}, **kinds[place % 3], "config": {"value": place}} for place in range(9)
    ]

    ids = member.post("/v1/jobs:batch", {"jobs": asked}).get_json()["ids"]

    jobs = [member.get(f"/v1/jobs/{job_id}").get_json() for job_id in ids]
    assert [job["labels"] for job in jobs] == [one["labels"] for one in asked]
    assert [job["config"]["value"] for job in sorted(jobs, key=lambda job: job["number"])] == list(range(9))


@pytest.mark.parametrize(
    ("jobs", "pointer"),
    [
        ([ECHO, {"type": "nonsense"}], "/jobs/1/type"),
        ([ECHO, ECHO, {}], "/jobs/2/type"),
        ([ECHO, {"type": "insert_csv_file"}], "/jobs/1/config/s3_key"),
        ([ECHO, {**ECHO, "config": {"valeu": 1}}], "/jobs/1/config/valeu"),
        ([ECHO, {**ECHO, "config": []}], "/jobs/1/config"),
        ([{**ECHO, "priority": "urgent"}, ECHO], "/jobs/0/priority"),
        ([ECHO, {**ECHO, "retry": {"maximum_attempts": 0}}], "/jobs/1/retry/maximum_attempts"),
        ([ECHO, {**ECHO, "query": 1}], "/jobs/1/query"),
        ([ECHO, {**ECHO, "labels": {"a": 1}}], "/jobs/1/labels/a/value"),
        ([ECHO, "echo"], "/jobs/1"),
        ([], "/jobs"),
        ([ECHO] * (bulk.MAX_JOBS + 1), "/jobs"),
        ("echo", "/jobs"),
        (None, "/jobs"),
    ],
)
def test_one_job_that_does_not_fit_is_named_and_none_is_made(
    member: Client, sessions: Sessions, jobs: Any, pointer: str
) -> None:
    answer = member.post("/v1/jobs:batch", {"jobs": jobs})

    assert answer.status_code == 422, answer.get_json()
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer]
    assert stored(sessions) == 0


def test_every_job_whose_options_do_not_fit_is_named(member: Client) -> None:
    answer = member.post("/v1/jobs:batch", {"jobs": [{**ECHO, "priority": "urgent"}, ECHO, {**ECHO, "labels": 7}]})

    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == ["/jobs/0/priority", "/jobs/2/labels"]


def test_another_tenants_place_in_s3_is_403(member: Client, sessions: Sessions) -> None:
    theirs = {"type": "insert_csv_file", "config": {"s3_key": "t/acme/uploads/theirs.csv"}}

    answer = member.post("/v1/jobs:batch", {"jobs": [ECHO, theirs]})

    assert (answer.status_code, stored(sessions)) == (403, 0)


@pytest.mark.feature("S2-92")
def test_the_same_idempotency_key_answers_with_the_first_jobs(member: Client, sessions: Sessions) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"jobs": [{**ECHO, "config": {"value": place}} for place in range(3)]}

    answers = [member.post("/v1/jobs:batch", body, headers=headers) for _ in range(2)]
    another = member.post("/v1/jobs:batch", {"jobs": body["jobs"][::-1]}, headers=headers)

    assert answers[0].get_json() == answers[1].get_json()
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    assert (another.status_code, another.get_json()["code"]) == (422, "idempotency.key_reused")
    assert stored(sessions) == 3


def test_a_key_stands_for_one_job_or_for_many_and_for_nothing_else(member: Client, sessions: Sessions) -> None:
    headers = {"Idempotency-Key": "once"}
    member.post("/v1/jobs", {**ECHO, "config": {"value": 1}}, headers=headers)

    answer = member.post("/v1/jobs:batch", {"jobs": [ECHO, ECHO]}, headers=headers)

    assert (answer.status_code, stored(sessions)) == (422, 1)


def test_of_requests_with_one_key_that_come_together_one_makes_jobs(sessions: Sessions) -> None:
    service = a_bulk(sessions)

    def submit() -> SubmittedMany | None:
        try:
            return service.submit(many(2), idempotency_key="once")
        except ConflictError:
            return None

    answers = in_threads(8, submit)

    assert len({tuple(answer.ids) for answer in answers if answer}) == 1
    assert sum(not answer.replayed for answer in answers if answer) == 1
    assert stored(sessions) == 2


def test_a_job_that_depends_on_others_waits_for_them(member: Client) -> None:
    needed = member.post("/v1/jobs", ECHO).get_json()["id"]

    ids = member.post("/v1/jobs:batch", {"jobs": [ECHO, {**ECHO, "depends_on": [needed]}]}).get_json()["ids"]

    assert [member.get(f"/v1/jobs/{job_id}").get_json()["state"] for job_id in ids] == ["queued", "blocked"]


def test_a_job_whose_need_has_failed_ends_as_it_says(member: Client) -> None:
    needed = member.post("/v1/jobs", ECHO).get_json()["id"]
    member.post(f"/v1/jobs/{needed}:cancel")
    policies = [{"on_dependency_failure": policy} for policy in ("cancel", "fail", "run")]

    answer = member.post("/v1/jobs:batch", {"jobs": [{**ECHO, "depends_on": [needed], **one} for one in policies]})

    states = [member.get(f"/v1/jobs/{job_id}").get_json()["state"] for job_id in answer.get_json()["ids"]]
    assert states == ["cancelled", "failed", "queued"]


def test_a_dependency_on_another_tenants_job_is_404_and_none_is_made(
    member: Client, stranger: Client, sessions: Sessions
) -> None:
    theirs = stranger.post("/v1/jobs", ECHO).get_json()["id"]
    own = member.post("/v1/jobs", ECHO).get_json()["id"]

    answers = [
        member.post("/v1/jobs:batch", {"jobs": [ECHO, {**ECHO, "depends_on": [own, needed]}]})
        for needed in (theirs, str(uuid4()))
    ]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert [answer.get_json()["errors"][0]["pointer"] for answer in answers] == ["/jobs/1/depends_on/1"] * 2
    assert stored(sessions) == 2


def test_a_queue_is_rung_once_for_each_claim(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_JOBS_AT_ONCE", 70)
    bell = RecordingBell()

    made = a_bulk(sessions, queue_bound=2 * CHEAP_AT_ONCE + 40, bell=bell).submit(many(100))

    states = Counter(job.state for job in a_service(sessions).batch_get("default", made.ids) if job)
    assert states == {JobState.QUEUED: 100}
    assert Counter(bell.rings) == {"small": 2, "engine": 1}


def test_jobs_of_one_request_go_to_the_queues_and_classes_of_each(sessions: Sessions) -> None:
    bell = RecordingBell()
    options = [a_request(), a_request(priority=Priority.HIGH), a_request(timeout_s=60.0)]
    asked = [Variant(one, {}) for one in options]

    made = a_bulk(sessions, queue_bound=2, bell=bell).submit(asked)

    found = [job for job in a_service(sessions).batch_get("default", made.ids) if job]
    assert [(job.queue, job.state) for job in found] == [
        (queue, JobState.QUEUED) for queue in ("small", "small", "data")
    ]
    assert Counter(bell.rings) == {"small": 1, "data": 1, "engine": 1}


def test_a_request_that_breaks_off_between_its_statements_leaves_nothing(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_JOBS_AT_ONCE", 2)
    insert, bell = new_jobs.insert, RecordingBell()
    calls: list[int] = []

    def breaks_off(*args: Any, **options: Any) -> dict[str, int]:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return insert(*args, **options)

    monkeypatch.setattr(new_jobs, "insert", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        a_bulk(sessions, bell=bell).submit(many(5), idempotency_key="once")

    monkeypatch.setattr(new_jobs, "insert", insert)
    again = a_bulk(sessions).submit(many(5), idempotency_key="once")

    assert (bell.rings, again.replayed, stored(sessions)) == ([], False, 5)


def test_ids_sort_as_the_request_does(sessions: Sessions) -> None:
    ids: list[UUID] = a_bulk(sessions).submit(many(2000)).ids

    assert ids == sorted(ids)
