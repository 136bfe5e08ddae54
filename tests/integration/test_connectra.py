"""The Connectra dialect over HTTP: document 004's requests, answers and error texts."""

# ruff: noqa: E501 - the texts of the document stand as they are

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from app.bootstrap import Services
from app.domain.errors import TransientError
from app.domain.jobs import Priority
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import a_slot
from tests.integration.conftest import Client

INSERT = {"job_type": "insert_csv_file", "job_data": {"s3_key": "uploads/contacts.csv"}, "retry_count": 3}
EXPORT = {
    "job_type": "export_csv_file",
    "job_data": {
        "service": "company",
        "vql": {
            "where": {
                "keyword_match": {"must": {"industries": ["Software", "SaaS"], "country": ["USA"]}},
                "range_query": {"must": {"employees_count": {"gte": 50, "lte": 1000}}},
            },
            "select_columns": ["id", "name", "employees_count"],
            "order_by": [{"order_by": "uuid", "order_direction": "desc"}],
            "limit": 500,
        },
    },
}


def _listed(client: Client, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/common/jobs", body)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    return list(answer.json["data"])


@pytest.mark.feature("S4-49", "S4-52", "S4-59", "S4-66")
def test_the_documents_jobs_are_created_and_listed_as_posted(member: Client) -> None:
    for body in (INSERT, EXPORT):
        created = member.post("/common/jobs/create", body)

        assert created.status_code == 201
        assert created.json is not None
        assert created.json["message"] == "Job created successfully"
        assert created.json["success"] is True
        assert created.headers["Location"] == f"/common/jobs/{created.json['uuid']}"

    export, insert = _listed(member)
    assert insert["data"] == INSERT["job_data"]
    assert export["data"] == EXPORT["job_data"]
    assert (insert["retry_count"], insert["retry_interval"], insert["run_after"]) == (3, 30, None)
    assert (insert["id"], insert["status"], insert["job_response"]) == (1, "in_queue", {})
    assert set(insert) >= {"id", "uuid", "job_type", "data", "status", "job_response", "retry_count", "retry_interval",
                           "run_after", "created_at", "updated_at"}  # fmt: skip


@pytest.mark.feature("S4-30", "S4-33", "S4-60", "S4-94", "S4-95", "S4-96", "S4-97")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"job_data": {"s3_key": "a"}}, "ERR_MISSING_JOB_TYPE: the 'job_type' field is required; specify a valid job type such as 'insert_csv_file' or 'export_csv_file'"),
        ({"job_type": "insert_csv_file"}, "ERR_MISSING_JOB_DATA: the 'job_data' field is required; include the necessary payload for job execution"),
        ({**INSERT, "retry_count": -1}, "ERR_INVALID_RETRY_COUNT: 'retry_count' must be a non-negative integer; use 0 for no retries or a positive number for retry attempts"),
        ({**INSERT, "retry_count": "x"}, "ERR_INVALID_RETRY_COUNT: 'retry_count' must be a non-negative integer; use 0 for no retries or a positive number for retry attempts"),
        ({**INSERT, "retry_count": 1.5}, "ERR_INVALID_RETRY_COUNT: 'retry_count' must be a non-negative integer; use 0 for no retries or a positive number for retry attempts"),
        ({"job_type": "export_csv_file", "job_data": {"service": "contact", "vql": {}}}, "ERR_MISSING_SELECT_COLUMNS: 'select_columns' is required for export operations; specify at least one column to include in the output"),
        ({"job_type": "export_csv_file", "job_data": {"service": "x", "vql": {"select_columns": ["uuid"]}}}, "ERR_UNKNOWN_SERVICE: the provided service identifier is not recognized; use 'contacts' or 'companies'"),
        ({"job_type": "nope", "job_data": {"a": 1}}, "ERR_INVALID_JOB_TYPE: job type 'nope' is not recognized; supported types are 'insert_csv_file' and 'export_csv_file'"),
    ],
)  # fmt: skip
def test_a_bad_creation_answers_400_in_the_documents_words_and_makes_no_job(
    member: Client, body: dict[str, Any], text: str
) -> None:
    answer = member.post("/common/jobs/create", body)

    assert (answer.status_code, answer.json) == (400, {"error": text, "success": False})
    assert _listed(member) == []


@pytest.mark.feature("S4-101")
def test_a_query_with_an_unknown_column_is_refused_at_creation(member: Client) -> None:
    body = {
        "job_type": "export_csv_file",
        "job_data": {"service": "contact", "vql": {"select_columns": ["frist_name"]}},
    }

    answer = member.post("/common/jobs/create", body)

    assert answer.status_code == 400
    assert answer.json is not None
    assert "first_name" in answer.json["error"]


def test_another_tenants_prefix_answers_403(member: Client) -> None:
    answer = member.post("/common/jobs/create", {**INSERT, "job_data": {"s3_key": "t/acme/uploads/a.csv"}})

    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["success"] is False


@pytest.mark.feature("S4-60")
def test_a_body_that_is_no_object_answers_400(member: Client) -> None:
    for data in (b"{", b"[]", b""):
        answer = member.call("POST", "/common/jobs/create", data=data, headers={"Content-Type": "application/json"})

        assert answer.status_code == 400
        assert answer.json == {"error": "the body must be a JSON object", "success": False}


@pytest.mark.feature("S4-58", "S4-61")
def test_a_wrong_key_answers_the_products_401(nobody: Client, member: Client, web_services: Services) -> None:
    web_services.keys.revoke("default", (member.key or "").split("_")[1])

    for client in (nobody, Client(nobody.app, "hk_x_y"), member):
        answer = client.post("/common/jobs/create", INSERT)

        assert (answer.status_code, answer.json) == (401, {"error": "unauthorized", "message": "invalid API key"})


@pytest.mark.feature("S4-65")
@pytest.mark.parametrize(
    ("limit", "code"), [(101, "ERR_LIMIT_TOO_HIGH"), (-1, "ERR_INVALID_LIMIT"), ("x", "ERR_INVALID_LIMIT")]
)
def test_a_limit_out_of_bounds_is_refused(member: Client, limit: object, code: str) -> None:
    answer = member.post("/common/jobs", {"limit": limit})

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"].startswith(code)


@pytest.mark.feature("S4-41", "S4-42", "S4-44", "S4-52", "S4-86")
def test_status_words_find_what_they_show(member: Client, sessions: Sessions) -> None:
    member.post("/common/jobs/create", INSERT)
    (queued,) = _listed(member, status=["in_queue"])
    runs = Runs(sessions)
    (job,) = runs.claim("data", a_slot(sessions, "data"), most=1, oldest=False)
    (running,) = _listed(member, status=["processing", "open"])
    nothing = _listed(member, status=["retrying"])
    runs.retry(job, TransientError("S3 hiccup"))
    (failed,) = _listed(member, status=["failed"])

    assert (queued["status"], running["status"], nothing) == ("in_queue", "processing", [])
    assert failed["status"] == "failed"
    assert failed["job_response"] == {"runtime_errors": ["S3 hiccup"]}
    due = datetime.fromisoformat(failed["run_after"])
    assert timedelta(seconds=25) < due - datetime.now(UTC) <= timedelta(seconds=30)


def test_an_unknown_status_word_is_refused_with_those_known(member: Client) -> None:
    answer = member.post("/common/jobs", {"status": ["nope"]})

    assert answer.status_code == 400
    assert answer.json is not None
    assert "retry_in_queued" in answer.json["error"]


@pytest.mark.feature("S4-45", "S4-105")
def test_run_after_in_the_past_brings_a_failed_job_to_the_retry_runner(member: Client, sessions: Sessions) -> None:
    created = member.post("/common/jobs/create", {**INSERT, "retry_count": 0}).json
    assert created is not None
    runs = Runs(sessions)
    (job,) = runs.claim("data", a_slot(sessions, "data"), most=1, oldest=False)
    runs.retry(job, TransientError("gone"))

    answer = member.call("PATCH", f"/common/jobs/{created['uuid']}", json={"run_after": "2026-01-01T00:00:00Z"})

    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["data"]["run_after"] == "2026-01-01T00:00:00Z"
    with sessions.begin() as session:
        admission.admit(session, "retry", Priority.NORMAL, bound=10)
    (waiting,) = _listed(member, status=["retry_in_queued"])
    assert waiting["uuid"] == created["uuid"]


@pytest.mark.parametrize("body", [{}, {"run_after": "soon"}, {"run_after": "2026-01-01T00:00:00"}, {"status": "open"}])
def test_a_patch_that_says_something_else_is_refused(member: Client, body: dict[str, Any]) -> None:
    created = member.post("/common/jobs/create", INSERT).json
    assert created is not None

    answer = member.call("PATCH", f"/common/jobs/{created['uuid']}", json=body)

    assert answer.status_code == 400


def test_another_tenants_job_answers_404(member: Client, stranger: Client) -> None:
    created = member.post("/common/jobs/create", INSERT).json
    assert created is not None

    assert stranger.get(f"/common/jobs/{created['uuid']}").status_code == 404
    assert (
        stranger.call(
            "PATCH", f"/common/jobs/{created['uuid']}", json={"run_after": "2026-01-01T00:00:00Z"}
        ).status_code
        == 404
    )
    assert _listed(stranger) == []


@pytest.mark.feature("S4-84", "S4-85")
def test_an_upload_url_takes_the_file(member: Client, nobody: Client) -> None:
    answer = member.get("/common/upload-url", query_string={"filename": "contacts.csv"})

    assert answer.status_code == 200
    ticket = answer.json
    assert ticket is not None
    assert (ticket["success"], ticket["expires_in"]) == (True, "24h0m0s")
    assert ticket["s3_key"].startswith("uploads/")
    assert ticket["s3_key"].endswith("_contacts.csv")
    put = requests.put(ticket["upload_url"], data=b"uuid\n", headers={"Content-Type": "text/csv"}, timeout=10)
    assert put.status_code == 200


def test_an_upload_url_needs_a_filename(member: Client) -> None:
    answer = member.get("/common/upload-url")

    assert (answer.status_code, answer.json) == (
        400,
        {"error": "filename query parameter is required", "success": False},
    )


def test_filters_and_counts_of_an_empty_table_answer(member: Client) -> None:
    filters = member.get("/common/contacts/filters").json
    values = member.post("/common/companies/filters/data", {"filter_key": "industries", "search_text": "soft%"}).json
    count = member.post("/contacts/count", {"where": {"keyword_match": {"must": {"company_country": ["USA"]}}}}).json
    rows = member.post("/companies/", {"where": {}, "limit": 5}).json

    assert filters is not None
    assert {"filter_key": "country", "type": "text", "table": "contacts"} in filters["data"]
    assert values == {"data": [], "success": True}
    assert count == {"count": 0, "success": True}
    assert rows is not None
    assert (rows["data"], rows["success"]) == ([], True)


def test_an_unknown_service_is_refused(member: Client) -> None:
    answer = member.get("/common/people/filters")

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"].startswith("ERR_UNKNOWN_SERVICE")
