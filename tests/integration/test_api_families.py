"""Pipelines, batches that are sent in lines, and runs, as clients meet them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest

from app.bootstrap import Services
from app.domain.errors import JobError, UnavailableError
from app.domain.job_types import Result
from app.persistence.sessions import Sessions
from app.services.places import Places
from app.services.runs import Runs
from config.settings import Settings
from tests.factories import a_slot
from tests.integration.conftest import Client

LINES = {"Content-Type": "application/x-ndjson"}
ECHO = {"type": "echo"}


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def pointers(answer: Any) -> list[str]:
    assert answer.status_code == 422, answer.get_data(as_text=True)
    return [fault["pointer"] for fault in answer.get_json()["errors"]]


def a_stage(name: str, *depends_on: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "type": "echo", "depends_on": depends_on, **changes}


def a_pipeline(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "nightly", "stages": stages, **changes}


@pytest.mark.feature("S2-42")
def test_a_pipeline_is_a_job_with_its_stages_as_children(admin: Client) -> None:  # S2-42
    template = {"config": {"value": "{{ stages.extract.result.value }}"}}

    answer = admin.post("/v1/pipelines", a_pipeline(a_stage("extract"), a_stage("load", "extract", **template)))

    job = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{job['id']}")
    assert (job["type"], job["name"], job["config"]["failure_strategy"]) == ("pipeline", "nightly", "stop-on-error")
    children = admin.get(f"/v1/jobs/{job['id']}/children").get_json()["items"]
    assert [(child["name"], child["needs_left"], child["result"]) for child in children] == [
        ("extract", 0, None),
        ("load", 1, None),
    ]


@pytest.mark.feature("S2-38")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (a_pipeline(), ["/stages"]),
        (a_pipeline(a_stage("a b")), ["/stages/0/name"]),
        (a_pipeline(a_stage("a"), a_stage("a")), ["/stages/1/name"]),
        (a_pipeline(a_stage("a"), a_stage("b"), a_stage("c", "gone")), ["/stages/2/depends_on/0"]),
        (a_pipeline(a_stage("a", "b"), a_stage("b", "a")), None),
        (a_pipeline(a_stage("a", type="gone")), ["/stages/0/type"]),
        (a_pipeline(a_stage("a", config={"value": "{{ stages.b.result }}"})), ["/stages/0/config/value"]),
        (a_pipeline(a_stage("a", retry={"maximum_attempts": 0})), ["/stages/0/retry/maximum_attempts"]),
        (a_pipeline(a_stage("a"), parallelism=0), ["/parallelism"]),
        (a_pipeline(a_stage("a"), failure_strategy="hope"), ["/failure_strategy"]),
        (a_pipeline(a_stage("a"), color="red"), ["/color"]),
    ],
)
def test_a_pipeline_that_does_not_fit_is_422_and_names_the_place(
    admin: Client, body: dict[str, Any], expected: list[str] | None
) -> None:
    answer = admin.post("/v1/pipelines", body)

    found = pointers(answer)
    if expected is None:
        assert "waits for" in answer.get_json()["errors"][0]["detail"]
    else:
        assert found == expected


@pytest.mark.feature("S3-19")
def test_payloads_that_come_in_lines_are_stored_as_they_stand(admin: Client) -> None:  # S3-19
    count = 2_500
    body = lines(
        {"max_concurrency": 7, "labels": {"a": "b"}}, *({"type": "echo", "config": {"value": n}} for n in range(count))
    )

    answer = admin.call("POST", "/v1/batches", data=body, headers=LINES)

    job = answer.get_json()
    assert (answer.status_code, job["labels"], job["config"]["max_concurrency"]) == (202, {"a": "b"}, 7)
    counts = admin.get(f"/v1/jobs/{job['id']}/children:count").get_json()
    assert (counts["total"], counts["pending"]) == (count, count)
    last = admin.get(f"/v1/jobs/{job['id']}/children", query_string={"after": count - 2}).get_json()["items"]
    assert [(child["child_no"], child["config"]) for child in last] == [(count - 1, {"value": count - 1})]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ["/0"]),
        (lines([]), ["/0"]),
        (lines({"max_concurrency": 0}, ECHO), ["/0/max_concurrency"]),
        (lines({"payloads": []}, ECHO), ["/0/payloads"]),
        (lines({}), ["/1"]),
        (lines({}, ECHO, {"type": "gone"}), ["/2/type"]),
        (lines({}, ECHO, ECHO, {"type": "echo", "config": {"wrong": 1}}), ["/3/config/wrong"]),
        (lines({}, ECHO, {"type": 7}), ["/2/type"]),
        (lines({}, ECHO, {}), ["/2/type"]),
        (lines({}, ECHO, "echo"), ["/2"]),
        (lines({}, ECHO) + b'{"type": "ec', ["/2"]),
        (lines({}, ECHO) + b"\n", ["/2"]),
        (lines({}, ECHO) + b"\xff\n", ["/2"]),
        (lines({}, ECHO) + b"[" * 100_000, ["/2"]),
        (lines({}, ECHO) + b"[" * 2**21, ["/2"]),
        (lines({}, {"type": "echo", "name": "\0"}), ["/1"]),
        (lines({"max_payloads": 1}, ECHO, ECHO), ["/2"]),
        (lines({"count": 3}, ECHO, ECHO), ["/0/count"]),
        (lines({"count": 1}, ECHO, ECHO), ["/0/count"]),
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_is_named_and_nothing_is_stored(
    admin: Client, body: bytes, expected: list[str]
) -> None:
    answer = admin.call("POST", "/v1/batches", data=body, headers=LINES)

    assert pointers(answer) == expected
    assert admin.get("/v1/jobs").get_json()["items"] == []


class Dropped(BytesIO):
    """A body whose sender goes away."""

    def __init__(self, body: bytes, services: Services) -> None:
        super().__init__(body)
        self._services = services
        self.in_use: int | None = None

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if not count:
            self.in_use = self._services.sessions.kw["bind"].pool.checkedout()
        return count


@pytest.mark.parametrize("ends", [False, True], ids=["reset", "closed between two lines"])
def test_an_upload_that_breaks_off_stores_nothing_and_held_no_transaction(
    admin: Client, web_services: Services, *, ends: bool
) -> None:
    body = Dropped(lines({}, *[ECHO] * 500), web_services)

    answer = admin.app.test_client().open(
        "/v1/batches",
        method="POST",
        headers={"X-API-Key": admin.key or "", **LINES},
        input_stream=body,
        environ_overrides={"CONTENT_LENGTH": str(10**6), "wsgi.input_terminated": ends},
    )

    assert answer.status_code == 400
    assert body.in_use == 0
    assert admin.get("/v1/jobs").get_json()["items"] == []


@pytest.mark.parametrize(("first", "status"), [({}, 422), ({"count": 3}, 422), ({"count": 2}, 202)])
def test_a_body_without_a_length_must_say_how_many_payloads_it_has(
    admin: Client, first: dict[str, int], status: int
) -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}

    answer = admin.call("POST", "/v1/batches", data=lines(first, ECHO, ECHO), headers=LINES, environ_overrides=chunked)

    assert answer.status_code == status
    assert status == 202 or pointers(answer) == ["/0/count"]


def test_lines_may_be_more_than_other_bodies_up_to_a_limit_of_their_own(
    settings: Settings, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(admin.app.config, "MAX_CONTENT_LENGTH", 1024)
    body = lines({}, *({"type": "echo", "config": {"value": n}} for n in range(100)))

    accepted = admin.call("POST", "/v1/batches", data=body, headers=LINES)
    as_json = admin.post("/v1/batches", {"payloads": [{"type": "echo", "config": {"value": "x" * 2000}}]})
    length = {"CONTENT_LENGTH": str(settings.max_lines_bytes + 1)}
    too_large = admin.call("POST", "/v1/batches", data=body, headers=LINES, environ_overrides=length)

    assert [answer.status_code for answer in (accepted, as_json, too_large)] == [202, 413, 413]


def test_no_more_uploads_of_lines_are_taken_at_once_than_have_a_place(admin: Client, web_services: Services) -> None:
    for _ in range(web_services.settings.web_threads // 8):
        web_services.upload_places.take()

    answer = admin.call("POST", "/v1/batches", data=lines({}, ECHO), headers=LINES)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.feature("S3-19")
@pytest.mark.parametrize("body", [{"payloads": []}, {"payloads": [ECHO], "on_failure": "retry"}])
def test_a_batch_without_payloads_or_with_the_policy_of_stages_is_refused(admin: Client, body: dict[str, Any]) -> None:
    assert pointers(admin.post("/v1/batches", body)) in (["/payloads"], ["/on_failure"])


def test_payloads_that_a_batch_has_no_place_for_are_refused(admin: Client) -> None:
    job_id = admin.post("/v1/batches", {"payloads": [ECHO], "max_payloads": 2}).get_json()["id"]

    assert pointers(admin.post(f"/v1/jobs/{job_id}/children", {"payloads": [ECHO, ECHO]})) == ["/payloads"]


def _work_one(sessions: Sessions, services: Services, *, fails: bool) -> None:
    """A worker's part, as soon as a job is there."""
    runs, slot = Runs(sessions), a_slot(sessions)
    while not (claimed := runs.claim("small", slot, most=1, oldest=False)):
        pass
    if fails:
        runs.fail(claimed[0], JobError("no", code="test.no"))
    else:
        runs.complete(claimed[0], Result({"value": 42}))


@pytest.mark.feature("S3-05")
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_ends_in_time_is_answered_with_its_result(
    admin: Client, sessions: Sessions, web_services: Services, *, fails: bool
) -> None:
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(_work_one, sessions, web_services, fails=fails)
        answer = admin.post("/v1/runs", {**ECHO, "wait_s": 30})
        working.result()

    job = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (200, f"/v1/jobs/{job['id']}")
    if fails:
        assert (job["state"], job["error"]["code"], job["result"]) == ("failed", "test.no", None)
    else:
        assert (job["state"], job["result"]) == ("completed", {"value": 42})


@pytest.mark.feature("S3-05")
def test_a_run_that_does_not_end_in_time_goes_on_as_a_job(admin: Client) -> None:
    answer = admin.post("/v1/runs", {**ECHO, "wait_s": 0.01, "labels": {"a": "b"}})

    job = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{job['id']}")
    assert (job["state"], job["result"], job["labels"]) == ("queued", None, {"a": "b"})


def test_a_run_that_finds_no_waiting_place_is_accepted_all_the_same(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_is_free(_: Places) -> None:
        raise UnavailableError("every waiting place is taken")

    monkeypatch.setattr(Places, "take", none_is_free)

    answer = admin.post("/v1/runs", {**ECHO, "wait_s": 30})

    assert answer.status_code == 202
    assert admin.get(answer.headers["Location"]).status_code == 200


def test_a_run_with_the_key_of_an_earlier_one_is_that_one(admin: Client) -> None:
    key = {"Idempotency-Key": "once"}

    first, again = (admin.post("/v1/runs", {**ECHO, "wait_s": 0}, headers=key) for _ in range(2))

    assert first.get_json()["id"] == again.get_json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"type": "gone"}, "/type"),
        ({**ECHO, "wait_s": 31}, "/wait_s"),
        ({**ECHO, "config": {"wrong": 1}}, "/config/wrong"),
    ],
)
def test_a_run_that_does_not_fit_is_422(admin: Client, body: dict[str, Any], expected: str) -> None:
    assert pointers(admin.post("/v1/runs", body)) == [expected]


def test_a_strangers_key_sees_no_stage(admin: Client, stranger: Client) -> None:
    job_id = UUID(admin.post("/v1/pipelines", a_pipeline(a_stage("a"))).get_json()["id"])

    assert stranger.get(f"/v1/jobs/{job_id}/children").status_code == 404
