"""Jobs over HTTP: accepted, watched, listed, steered, and what is refused before a row is made."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.bootstrap import Services, build_services
from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.factory import create_app
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from config.settings import Settings
from tests.factories import a_slot
from tests.integration.conftest import Client

NO_COLUMNS = {"service": "contact", "vql": {}}
AT_COLUMNS = "/config/vql/select_columns"


def _claimed(sessions: Sessions, queue: str = "small") -> tuple[Runs, Job]:
    """What the next worker of a queue would hold."""
    runs = Runs(sessions)
    (job,) = runs.claim(queue, a_slot(sessions, queue), most=1, oldest=False)
    return runs, job


@pytest.mark.feature("S0-07", "S0-35", "S1-01", "S1-12")
def test_a_job_is_accepted_with_its_address(member: Client) -> None:
    answer = member.post("/v1/jobs", {"type": "echo", "config": {"value": 7}, "labels": {"run": "a"}})
    job = answer.get_json()

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert (job["state"], job["config"], job["labels"], job["attempts"]) == ("queued", {"value": 7}, {"run": "a"}, 0)
    assert member.get(answer.headers["Location"]).get_json()["id"] == job["id"]


@pytest.mark.feature("S2-92")
def test_the_same_idempotency_key_answers_with_the_first_job(member: Client) -> None:
    headers = {"Idempotency-Key": "once"}

    answers = [member.post("/v1/jobs", {"type": "echo"}, headers=headers) for _ in range(2)]
    another = member.post("/v1/jobs", {"type": "echo", "config": {"value": 1}}, headers=headers)

    assert answers[0].get_json()["id"] == answers[1].get_json()["id"]
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    assert (another.status_code, another.get_json()["code"]) == (422, "idempotency.key_reused")
    assert len(member.get("/v1/jobs").get_json()["items"]) == 1


def test_the_same_idempotency_key_of_another_tenant_is_another_job(member: Client, stranger: Client) -> None:
    headers = {"Idempotency-Key": "once"}

    ids = {client.post("/v1/jobs", {"type": "echo"}, headers=headers).get_json()["id"] for client in (member, stranger)}

    assert len(ids) == 2


@pytest.mark.feature("S2-33")
@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"type": "nonsense"}, 422, "job_type.unknown", "/type"),
        ({}, 422, "request.invalid", "/type"),
        ({"type": "insert_csv_file"}, 422, "job.config_invalid", "/config/s3_key"),
        ({"type": "insert_csv_file", "config": {"s3_key": 5}}, 422, "job.config_invalid", "/config/s3_key"),
        ({"type": "insert_csv_file", "config": {"s3_key": "a", "batch_rows": "5"}}, 422, "job.config_invalid", None),
        ({"type": "export_csv_file", "config": NO_COLUMNS}, 422, "vql.select_columns_required", AT_COLUMNS),
        ({"type": "echo", "query": 1}, 422, "request.invalid", "/query"),
        ({"type": "echo", "json": {"a": 1}}, 422, "request.invalid", "/json"),
        ({"type": "echo", "config": []}, 422, "request.invalid", "/config"),
        ({"type": "echo", "retry": {"maximum_attempts": -1}}, 422, "request.invalid", "/retry/maximum_attempts"),
        ({"type": "echo", "retry": {"maximum_attempts": "three"}}, 422, "request.invalid", "/retry/maximum_attempts"),
        ({"type": "echo", "retry": {"max_attempts": 3}}, 422, "request.invalid", "/retry/max_attempts"),
        ({"type": "echo", "retry": {"initial_interval": "2 parsecs"}}, 422, None, "/retry/initial_interval"),
        ({"type": "echo", "retry": {"maximum_interval": -1}}, 422, "request.invalid", "/retry/maximum_interval"),
        ({"type": "echo", "retry": {"maximum_interval": "2y"}}, 422, "request.invalid", "/retry/maximum_interval"),
        ({"type": "echo", "retry": {"backoff_coefficient": 0.5}}, 422, None, "/retry/backoff_coefficient"),
        ({"type": "echo", "retry": {"non_retryable": "job.x"}}, 422, "request.invalid", "/retry/non_retryable"),
        ({"type": "echo", "timeout_s": 0}, 422, "request.invalid", "/timeout_s"),
        ({"type": "echo", "run_after": "tomorrow"}, 422, "request.invalid", "/run_after"),
        ({"type": "echo", "run_after": "2026-01-01T00:00:00"}, 422, "request.invalid", "/run_after"),
        ({"type": "echo", "priority": "urgent"}, 422, "request.invalid", "/priority"),
        ({"type": "echo", "labels": {"a": 1}}, 422, "request.invalid", "/labels/a/value"),
    ],
)  # fmt: skip
def test_a_job_that_does_not_fit_is_refused_before_a_row_is_made(
    member: Client, body: dict[str, Any], status: int, code: str | None, pointer: str | None
) -> None:
    answer = member.post("/v1/jobs", body)
    problem = answer.get_json()

    assert answer.status_code == status, problem
    assert answer.mimetype == "application/problem+json"
    assert code in (None, problem["code"])
    assert pointer is None or pointer in [fault["pointer"] for fault in problem["errors"]]
    assert member.get("/v1/jobs").get_json()["items"] == []


@pytest.mark.feature("S4-132")
@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"s3_key": "t/acme/uploads/theirs.csv"}, "s3.prefix_forbidden"),
        ({"s3_key": "../outside.csv"}, "s3.prefix_forbidden"),
        ({"s3_key": "a.csv", "s3_bucket": "somebody-elses"}, "s3.bucket_forbidden"),
    ],
)
def test_another_tenants_place_in_s3_is_403(member: Client, config: dict[str, str], code: str) -> None:
    answer = member.post("/v1/jobs", {"type": "insert_csv_file", "config": config})

    assert (answer.status_code, answer.get_json()["code"]) == (403, code)
    assert member.get("/v1/jobs").get_json()["items"] == []


@pytest.mark.feature("S4-20")
@pytest.mark.parametrize("left_out", [{}, {"bucket": None}])
def test_an_import_that_names_no_bucket_shows_the_installations(
    member: Client, settings: Settings, left_out: dict[str, None]
) -> None:
    csv = {"s3_key": "a.csv", **({"s3_bucket": None} if left_out else {})}
    file = {"source": {"s3": {"key": "a.csv", **left_out}}, "table": "contacts"}

    old = member.post("/v1/jobs", {"type": "insert_csv_file", "config": csv})
    new = member.post("/v1/jobs", {"type": "import", "config": file})
    text = member.post("/v1/jobs", {"type": "import", "config": {"source": {"text": "uuid\n"}, "table": "contacts"}})
    batch = member.post("/v1/batches", {"payloads": [{"type": "insert_csv_file", "config": csv}]})

    shown = [member.get(answer.headers["Location"]).get_json() for answer in (old, new, text)]
    [child] = member.get(f"{batch.headers['Location']}/children").get_json()["items"]
    own = settings.s3_bucket
    assert shown[0]["config"] == child["config"] == {"s3_key": "a.csv", "s3_bucket": own}
    assert shown[1]["config"]["source"] == {"s3": {"key": "a.csv", "bucket": own}}
    assert shown[2]["config"]["source"] == {"text": "uuid\n"}


@pytest.mark.feature("S4-20")
def test_stages_and_exports_that_name_no_bucket_show_the_installations(member: Client, settings: Settings) -> None:
    key, whole = "{{ stages.first.result.key }}", "{{ stages.first.result }}"
    configs = [
        ("insert_csv_file", {"s3_key": key}),
        ("import", {"source": {"s3": {"key": key}}, "table": "contacts"}),
        ("import", {"source": {"s3": whole}, "table": "contacts"}),
        ("import", {"source": whole, "table": "contacts"}),
        ("export", {"table": "contacts", "key": key}),
        ("export", {"table": "contacts", "key": key, "destination": whole}),
        ("export_csv_file", {"service": "contact", "vql": {"select_columns": [key]}}),
    ]
    waiting = [
        {"name": f"s{no}", "type": kind, "config": config, "depends_on": ["first"]}
        for no, (kind, config) in enumerate(configs)
    ]
    stages = [{"name": "first", "type": "echo"}, *waiting]

    pipeline = member.post("/v1/pipelines", {"name": "nightly", "stages": stages})
    export = member.post("/v1/jobs", {"type": "export", "config": {"table": "contacts"}})

    children = member.get(f"{pipeline.headers['Location']}/children").get_json()["items"]
    own = {"s3_bucket": settings.s3_bucket}
    assert {child["name"]: child["config"] for child in children if child["name"] != "first"} == {
        "s0": {**configs[0][1], **own},
        "s1": {**configs[1][1], "source": {"s3": {"key": key, "bucket": settings.s3_bucket}}},
        "s2": configs[2][1],
        "s3": configs[3][1],
        "s4": {**configs[4][1], **own},
        "s5": configs[5][1],
        "s6": {**configs[6][1], **own},
    }
    assert export.get_json()["config"] == {"table": "contacts", **own}


@pytest.mark.feature("S2-49")
def test_a_job_that_has_not_changed_is_304(member: Client, sessions: Sessions) -> None:
    location = member.post("/v1/jobs", {"type": "echo"}).headers["Location"]
    etag = member.get(location).headers["ETag"]

    unchanged = member.get(location, headers={"If-None-Match": etag})
    _claimed(sessions)
    changed = member.get(location, headers={"If-None-Match": etag})

    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert (changed.status_code, changed.get_json()["state"]) == (200, "running")


def test_waiting_answers_when_the_job_ends_or_the_time_is_over(member: Client, sessions: Sessions) -> None:
    location = member.post("/v1/jobs", {"type": "echo"}).headers["Location"]
    started_at = time.monotonic()
    first = member.get(location, query_string={"wait": 0.3}).get_json()
    waited_s = time.monotonic() - started_at
    runs, job = _claimed(sessions)
    end = threading.Timer(0.3, lambda: runs.complete(job, Result(data={"value": 1})))
    end.start()

    second = member.get(location, query_string={"wait": 30}).get_json()
    end.join()

    assert (first["state"], second["state"]) == ("queued", "completed")
    assert 0.25 < waited_s < 10
    assert time.monotonic() - started_at < 20


def test_more_waits_than_there_are_places_are_503_and_others_are_served(
    settings: Settings, web_services: Services, member: Client
) -> None:
    crowded = settings.model_copy(update={"web_threads": 4})
    services = build_services(crowded, application_name="tests crowded", pool_size=4)
    client = Client(create_app(crowded, services), member.key)
    location = client.post("/v1/jobs", {"type": "echo"}).headers["Location"]
    answers: list[int] = []

    def wait() -> None:
        answers.append(client.get(location, query_string={"wait": 1.5}).status_code)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    meanwhile = client.get(location)
    for thread in threads:
        thread.join()
    services.sessions.kw["bind"].dispose()

    assert sorted(answers) == [200, 200, 503, 503]
    assert meanwhile.status_code == 200


@pytest.mark.feature("S0-35")
def test_a_listing_is_filtered_and_its_pages_hold_every_job_once(member: Client) -> None:
    ids = [
        member.post("/v1/jobs", {"type": "echo", "labels": {"odd": str(number % 2)}}).get_json()["id"]
        for number in range(7)
    ]
    member.post(f"/v1/jobs/{ids[0]}:cancel")

    pages, path = [], "/v1/jobs?limit=2&label=odd%3D0"
    while path:
        answer = member.get(path)
        pages.append([job["id"] for job in answer.get_json()["items"]])
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
    cancelled = member.get("/v1/jobs?state=cancelled&state=failed").get_json()["items"]

    assert pages == [[ids[6], ids[4]], [ids[2], ids[0]]]
    assert [job["id"] for job in cancelled] == [ids[0]]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "state=busy", "label=odd", "unknown=1", "cursor=@@"])
def test_a_listing_refuses_what_it_does_not_know(member: Client, query: str) -> None:
    answer = member.get(f"/v1/jobs?{query}")

    assert answer.status_code in (400, 422)


@pytest.mark.feature("S2-60")
def test_many_jobs_are_read_at_once_and_missing_ones_are_marked(member: Client, stranger: Client) -> None:
    own = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    theirs = stranger.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    member.post(f"/v1/jobs/{own}:cancel")

    both = member.post("/v1/jobs:batchGet", {"ids": [theirs, own]}).get_json()
    one = member.post("/v1/jobs:batchGet", {"ids": [own]}).get_json()

    assert [(item["id"], item["job"] and item["job"]["state"]) for item in both["items"]] == [
        (theirs, None),
        (own, "cancelled"),
    ]
    assert (both["all_terminal"], one["all_terminal"], one["all_succeeded"]) == (False, True, False)


@pytest.mark.feature("S2-61")
def test_how_far_a_set_of_jobs_is_counts_each_job_or_each_row(member: Client, sessions: Sessions) -> None:
    ids = [member.post("/v1/jobs", {"type": "echo"}).get_json()["id"] for _ in range(2)]
    with sessions.begin() as session:
        for job_id, done, total in zip(ids, (30, 10), (40, 160), strict=True):
            progress = {"id": job_id, "done": done, "total": total}
            session.execute(text("UPDATE jobs SET rows_done = :done, rows_total = :total WHERE id = :id"), progress)

    answer = member.post("/v1/jobs:batchGet", {"ids": ids}).get_json()

    assert (answer["mean_percent"], answer["weighted_percent"]) == (40.6, 20.0)


@pytest.mark.feature("S2-71", "S2-73")
def test_a_failed_job_tells_why_and_can_be_opened_again(member: Client, sessions: Sessions) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    runs, job = _claimed(sessions)
    runs.fail(job, JobError("the file has no header", code="csv.no_header", hint="Add one."))

    failed = member.get(f"/v1/jobs/{job_id}").get_json()
    errors = member.get(f"/v1/jobs/{job_id}/errors").get_json()["items"]
    trail = member.get(f"/v1/jobs/{job_id}/events").get_json()["items"]
    opened = member.post(f"/v1/jobs/{job_id}:retry")
    again = member.post(f"/v1/jobs/{job_id}:retry")

    assert (failed["state"], failed["error"]["code"]) == ("failed", "csv.no_header")
    assert [(error["code"], error["hint"], error["attempt"]) for error in errors] == [("csv.no_header", "Add one.", 1)]
    assert [event["number"] for event in trail] == list(range(1, len(trail) + 1))
    assert trail[-1]["target"] == "failed"
    assert (opened.status_code, opened.get_json()["attempts"]) == (200, 0)
    assert (again.status_code, again.get_json()["code"]) == (409, "job.not_retriable")


@pytest.mark.feature("S0-35")
def test_a_running_job_is_asked_to_stop_and_an_ended_one_conflicts(member: Client, sessions: Sessions) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    runs, job = _claimed(sessions)

    asked = member.delete(f"/v1/jobs/{job_id}").get_json()
    runs.cancel(job, "user")
    late = member.post(f"/v1/jobs/{job_id}:cancel")

    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    assert (late.status_code, late.get_json()["state"]) == (409, "cancelled")


@pytest.mark.feature("S4-106")
def test_a_clone_is_a_new_job_with_the_same_config(member: Client) -> None:
    first = member.post("/v1/jobs", {"type": "echo", "config": {"value": [1]}, "priority": "high"}).get_json()

    answer = member.post(f"/v1/jobs/{first['id']}:clone")
    clone = answer.get_json()

    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{clone['id']}")
    assert clone["id"] != first["id"]
    assert (clone["clone_of"], clone["config"], clone["priority"]) == (first["id"], {"value": [1]}, "high")


@pytest.mark.feature("S2-64", "S2-66")
def test_a_result_is_there_when_the_job_has_ended(member: Client, sessions: Sessions) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    early = member.get(f"/v1/jobs/{job_id}/result")
    runs, job = _claimed(sessions)
    runs.complete(job, Result(data={"value": 5}))

    result = member.get(f"/v1/jobs/{job_id}/result").get_json()

    assert early.status_code == 409
    assert (result["state"], result["outcome"], result["data"], result["file_url"]) == (
        "completed",
        "success",
        {"value": 5},
        None,
    )


@pytest.mark.feature("S2-31")
def test_every_job_type_comes_with_the_schema_of_its_config(member: Client) -> None:
    types = {one["name"]: one for one in member.get("/v1/job-types").get_json()["items"]}

    assert {"insert_csv_file", "export_csv_file", "echo"} <= set(types)
    assert types["insert_csv_file"]["config_schema"]["required"] == ["s3_key"]
    assert types["insert_csv_file"]["config_schema"]["additionalProperties"] is False


def test_health_tells_of_each_store_and_accepts_jobs_without_redis(
    settings: Settings, nobody: Client, member: Client
) -> None:
    without_redis = settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:9/0")})
    services = build_services(without_redis, application_name="tests without redis", pool_size=2)
    client = Client(create_app(without_redis, services), member.key)

    whole = nobody.get("/v1/health")
    degraded = client.get("/v1/health")
    accepted = client.post("/v1/jobs", {"type": "echo"})
    services.sessions.kw["bind"].dispose()

    assert (whole.status_code, whole.get_json()["status"]) == (200, "ok")
    assert (degraded.status_code, degraded.get_json()["status"]) == (200, "degraded")
    assert degraded.get_json()["checks"]["postgres"] == "ok"
    assert accepted.status_code == 202


@pytest.mark.feature("S4-62")
def test_a_database_that_is_away_is_503_with_a_hint(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": type(settings.database_url)("postgresql://haulier@127.0.0.1:9/haulier")}
    )
    services = build_services(away, application_name="tests away", pool_size=1)
    client = Client(create_app(away, services), f"hk_{'a' * 10}_{'b' * 46}")

    health = client.get("/v1/health")
    answer = client.get(f"/v1/jobs/{uuid4()}")

    assert (health.status_code, health.get_json()["status"]) == (503, "unavailable")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "service.database_unavailable")
    assert answer.headers["Retry-After"] == "2"
