"""Document 004's examples, word for word but for host, key and bucket, against a whole installation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import requests

from app.cli.demo_data import make
from app.domain.ports import ObjectRef
from app.runtime.stack import Stack
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.conftest import _folder_open_to_all

BUCKET = "my-bucket"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything but beat, http and Flower; the bucket is called as in the document."""
    stack = Stack(
        _folder_open_to_all(),
        processes=("web", "engine", "worker", "retry"),
        bucket=BUCKET,
        environment={"HAULIER_LOG_LEVEL": "WARNING"},
        throw_away=True,
    )
    stack.start()
    yield stack
    stack.stop()
    stack.remove()


class Curl:
    """Calls as the document's examples do."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.url
        self.headers = {"X-API-Key": stack.admin_key}

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=self.headers, timeout=30)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, headers=self.headers, timeout=30)

    def patch(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.patch(self.url + path, json=body, headers=self.headers, timeout=30)

    def ended(self, uuid: str, word: str, within_s: float = 60) -> dict[str, Any]:
        """The job once it is listed under ``word``, by the document's own way of looking."""
        until = monotonic() + within_s
        while monotonic() < until:
            for job in self.post("/common/jobs", {"status": [word], "limit": 100}).json()["data"]:
                if job["uuid"] == uuid:
                    return dict(job)
            sleep(0.1)
        raise AssertionError(f"{uuid} is not {word}: {self.get(f'/common/jobs/{uuid}').text}")


@pytest.fixture(scope="module")
def curl(stack: Stack) -> Curl:
    """A client."""
    return Curl(stack)


def _object(stack: Stack, key: str) -> str:
    names = {k.removeprefix("HAULIER_").lower(): v for k, v in stack.stores.environment().items()}
    settings = Settings(**{name: value for name, value in names.items() if name in Settings.model_fields})
    with S3Store(settings).open(ObjectRef(BUCKET, key)) as reader:
        return reader.read().decode()


@pytest.mark.feature("S4-18", "S4-29", "S4-30", "S4-43", "S4-50", "S4-56", "S4-57", "S4-87")
def test_example_1_imports_contacts_and_example_3_exports_them(stack: Stack, curl: Curl, tmp_path: Path) -> None:
    make(tmp_path / "contacts.csv", rows=2_000)

    # Step 1: Upload CSV to S3
    ticket = curl.get("/common/upload-url?filename=contacts.csv").json()
    with (tmp_path / "contacts.csv").open("rb") as file:
        put = requests.put(ticket["upload_url"], data=file, headers={"Content-Type": "text/csv"}, timeout=30)
    assert put.status_code == 200
    # Step 2: Create Import Job
    created = curl.post(
        "/common/jobs/create",
        {
            "job_type": "insert_csv_file",
            "job_data": {"s3_key": ticket["s3_key"], "s3_bucket": "my-bucket"},
            "retry_count": 3,
        },
    )
    assert (created.status_code, created.json()["message"]) == (201, "Job created successfully")
    # Step 3: Monitor Job Status
    job = curl.ended(created.json()["uuid"], "completed")
    assert job["job_response"]["messages"].startswith("Import completed successfully")
    assert (job["retry_count"], job["data"]["s3_bucket"]) == (3, "my-bucket")

    # Example 3: Large Dataset Export (country as in the file)
    created = curl.post(
        "/common/jobs/create",
        {
            "job_type": "export_csv_file",
            "job_data": {
                "service": "contact",
                "vql": {
                    "where": {"keyword_match": {"must": {"country": ["Germany"]}}},
                    "select_columns": ["first_name", "last_name", "email", "title", "company_id"],
                    "order_by": [{"order_by": "uuid", "order_direction": "desc"}],
                    "limit": 500,
                },
            },
        },
    )
    export = curl.ended(created.json()["uuid"], "completed")
    assert export["job_response"]["s3_key"] == f"uploads/{export['uuid']}.csv"
    rows = list(csv.DictReader(io.StringIO(_object(stack, export["job_response"]["s3_key"]))))
    count = curl.post("/contacts/count", {"where": {"keyword_match": {"must": {"country": ["Germany"]}}}}).json()
    assert len(rows) == count["count"] > 100
    assert set(rows[0]) == {"first_name", "last_name", "email", "title", "company_id"}


@pytest.mark.feature("S4-30", "S4-90", "S4-91")
def test_example_2_exports_companies(stack: Stack, curl: Curl) -> None:
    rows = [
        {"name": "Acme", "employees_count": 120, "annual_revenue": 2_000_000, "industries": ["Software"],
         "country": "USA", "linkedin_url": "https://l/acme"},
        {"name": "Small", "employees_count": 5, "annual_revenue": 2_000_000, "industries": ["SaaS"],
         "country": "USA", "linkedin_url": "https://l/small"},
        {"name": "Elsewhere", "employees_count": 120, "annual_revenue": 2_000_000, "industries": ["SaaS"],
         "country": "France", "linkedin_url": "https://l/elsewhere"},
    ]  # fmt: skip
    assert curl.post("/companies/batch-upsert", {"data": rows}).status_code == 200

    created = curl.post(
        "/common/jobs/create",
        {
            "job_type": "export_csv_file",
            "job_data": {
                "s3_bucket": "my-bucket",
                "service": "company",
                "vql": {
                    "where": {
                        "keyword_match": {"must": {"industries": ["Software", "SaaS"], "country": ["USA"]}},
                        "range_query": {
                            "must": {"employees_count": {"gte": 50, "lte": 1000}, "annual_revenue": {"gte": 1000000}}
                        },
                    },
                    "select_columns": [
                        "id", "name", "employees_count", "annual_revenue", "industries", "country", "website",
                    ],
                    "order_by": [{"order_by": "uuid", "order_direction": "desc"}],
                    "limit": 500,
                },
            },
        },
    )  # fmt: skip
    export = curl.ended(created.json()["uuid"], "completed")

    found = list(csv.DictReader(io.StringIO(_object(stack, export["job_response"]["s3_key"]))))
    assert [row["name"] for row in found] == ["Acme"]


@pytest.mark.feature("S4-44", "S4-50", "S4-51", "S4-105")
def test_a_failing_job_is_retried_by_the_retry_runner_and_then_by_hand(curl: Curl) -> None:
    missing = {"job_type": "insert_csv_file", "job_data": {"s3_key": "uploads/none.csv"}, "retry_interval": 1}

    created = curl.post("/common/jobs/create", {**missing, "retry_count": 1}).json()
    until = monotonic() + 60
    job = curl.ended(created["uuid"], "failed")
    while job["run_after"] is not None or len(job["job_response"]["runtime_errors"]) < 2:
        assert monotonic() < until, job
        sleep(0.2)
        job = curl.get(f"/common/jobs/{created['uuid']}").json()["data"]

    assert (job["status"], job["retry_count"], job["retries"]) == ("failed", 1, 1)
    assert "uploads/none.csv" in job["job_response"]["runtime_errors"][-1]
    # Manual retry: updating a failed job's run_after to a past time
    again = curl.patch(f"/common/jobs/{created['uuid']}", {"run_after": "2025-01-15T10:30:00Z"})
    assert again.status_code == 200
    until = monotonic() + 60
    while len(job["job_response"]["runtime_errors"]) < 4:
        assert monotonic() < until, job
        sleep(0.2)
        job = curl.get(f"/common/jobs/{created['uuid']}").json()["data"]


def test_the_listing_examples_answer(curl: Curl) -> None:
    for body in ({"status": ["open"], "limit": 50}, {"status": ["failed"], "limit": 100}):
        answer = curl.post("/common/jobs", body)

        assert (answer.status_code, answer.json()["success"]) == (200, True)
