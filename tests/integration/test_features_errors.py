"""What the feature list says of failures: which are tried again and when, what stores that are away cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from app.bootstrap import build_services
from app.domain.errors import JobError, TransientError
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.retry import RetryPolicy, retry_attempts
from app.factory import create_app
from app.persistence.sessions import Sessions
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.types.insert_csv_file import JOB_TYPE as INSERT
from tests.factories import a_request
from tests.integration.conftest import Client
from tests.integration.families import Installation
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.worker import Worker, attempt


def fail_until_it_gives_up(here: Installation, policy: RetryPolicy) -> list[float]:
    """The waits of a job that always fails, in seconds: one less than it runs."""
    job_id = here.jobs.submit(a_request(retry=policy)).job.id
    waits = []
    while here.state(job_id) is not JobState.FAILED:
        with here.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET due_at = now()"))
        here.tick()
        [job] = here.claim()
        wait_s = here.runs.retry(job, TransientError("no"))
        if wait_s is not None:
            waits.append(wait_s)
    assert here.jobs.get("default", job_id).attempts == len(waits) + 1
    return waits


@pytest.mark.feature("S2-35")
def test_a_job_with_three_retry_attempts_that_always_fails_runs_four_times(sessions: Sessions) -> None:
    waits = fail_until_it_gives_up(Installation(sessions), retry_attempts(3))

    assert len(waits) == 3


@pytest.mark.feature("S2-74")
def test_the_waits_between_attempts_double_from_one_second(sessions: Sessions) -> None:
    policy = RetryPolicy(maximum_attempts=5, jitter=False)

    waits = fail_until_it_gives_up(Installation(sessions), policy)

    assert waits == [1, 2, 4, 8]


@pytest.fixture
def shaky_s3(settings: Settings) -> Iterator[FaultyS3]:
    proxy = FaultyS3(str(settings.s3_endpoint))
    yield proxy
    proxy.close()


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, shaky_s3: FaultyS3) -> Iterator[Worker]:
    """A worker that imports from an S3 that misbehaves on request."""
    far = S3Store(settings.model_copy(update={"s3_endpoint": shaky_s3.url}), attempts=1)
    worker = Worker(sessions, settings, far, types=(INSERT,))
    worker.heart.start()
    yield worker
    worker.heart.stop()


def import_of(client: Client, key: str) -> str:
    answer = client.post("/v1/jobs", {"type": "insert_csv_file", "config": {"s3_key": key}})
    assert answer.status_code == 202, answer.get_json()
    return f"/v1/jobs/{answer.get_json()['id']}"


@pytest.mark.feature("S0-18")
def test_an_s3_that_is_busy_is_asked_again_and_a_wrong_file_is_not(
    worker: Worker, member: Client, objects: ObjectStore, settings: Settings, shaky_s3: FaultyS3
) -> None:
    for name, body in (("good.csv", b"first_name\nAda\n"), ("wrong.csv", b"frist_name\nAda\n")):
        objects.put(ObjectRef(settings.s3_bucket, name), body, content_type="text/csv")
    good, wrong = import_of(member, "good.csv"), import_of(member, "wrong.csv")
    shaky_s3.fault = lambda method, path: "503"
    attempt(worker)
    busy = member.get(good).get_json()
    shaky_s3.fault = lambda method, path: None
    attempt(worker)
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'queued', admitted_at = now() WHERE state = 'retry_wait'"))

    attempt(worker)

    ended = [member.get(job).get_json() for job in (good, wrong)]
    assert (busy["state"], busy["error"]["code"]) == ("retry_wait", "s3.unavailable")
    assert [(job["state"], job["attempts"]) for job in ended] == [("completed", 2), ("failed", 1)]


@pytest.mark.feature("S0-10", "S0-17", "S4-19", "S4-98")
def test_an_import_of_a_missing_file_says_which_and_what_to_check(worker: Worker, member: Client) -> None:
    job = import_of(member, "uploads/none.csv")

    attempt(worker)

    failed = member.get(job).get_json()
    error = failed["error"]
    assert (failed["state"], error["code"], error["attempt"]) == ("failed", "s3.not_found", 1)
    assert error["data"] == {"bucket": "haulier-test", "key": "uploads/none.csv"}
    assert "'uploads/none.csv' in bucket 'haulier-test'" in error["message"]
    assert "Check s3_key" in error["hint"]


@pytest.mark.feature("S2-97")
def test_a_job_type_that_raises_leaves_nothing_of_its_batch(worker: Worker, sessions: Sessions) -> None:
    def breaks_off(job: Any) -> None:
        with job.sessions.begin() as session:
            session.execute(text("INSERT INTO tenants (name) VALUES ('half-written')"))
            raise JobError("no")

    job_id = worker.submit(breaks_off)

    attempt(worker)

    with sessions.begin() as session:
        left = session.execute(text("SELECT count(*) FROM tenants WHERE name = 'half-written'")).scalar_one()
    assert (worker.state(job_id), left) == (JobState.FAILED, 0)


@pytest.fixture
def without_postgres(settings: Settings) -> Iterator[Client]:
    """A client of a server whose database is away."""
    url = type(settings.database_url)("postgresql://haulier@127.0.0.1:9/haulier")
    away = settings.model_copy(update={"database_url": url})
    services = build_services(away, application_name="tests away", pool_size=1)
    yield Client(create_app(away, services), f"hk_{'a' * 10}_{'b' * 46}")
    services.sessions.kw["bind"].dispose()


@pytest.mark.feature("S4-62")
def test_a_creation_without_the_database_is_refused_for_now(without_postgres: Client) -> None:
    native = without_postgres.post("/v1/jobs", {"type": "echo"})
    connectra = without_postgres.post(
        "/common/jobs/create", {"job_type": "insert_csv_file", "job_data": {"s3_key": "a.csv"}}
    )

    assert (native.status_code, native.get_json()["code"]) == (503, "service.database_unavailable")
    assert (connectra.status_code, connectra.get_json()["success"]) == (503, False)
