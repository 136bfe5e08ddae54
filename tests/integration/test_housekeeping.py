"""What beat starts: jobs of the system, hidden unless they are asked for."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.domain.jobs import Job, Origin, Outcome
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence import job_lists
from app.persistence.job_lists import Filters
from app.persistence.sessions import Sessions
from app.scheduling.redbeat import FIRE_TASK
from beat_schedule import BEAT_SCHEDULE
from config.settings import Settings
from tasks.types.housekeeping import JOB_TYPE
from tests.factories import a_request, a_service
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt


def begin(monkeypatch: pytest.MonkeyPatch, settings: Settings, duty: str) -> None:
    """What beat does."""
    from tasks import housekeeping

    monkeypatch.setattr(housekeeping, "settings", lambda: settings)
    housekeeping.begin_duty(duty)


def of_system(sessions: Sessions) -> list[Job]:
    with sessions.begin() as session:
        return job_lists.find(session, "default", Filters(of_system=True), limit=10)


def done(monkeypatch: pytest.MonkeyPatch, settings: Settings, worker: Worker, duty: str) -> Job:
    """A duty's job, begun as by beat and run by a worker of ``small``."""
    begin(monkeypatch, settings, duty)
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'queued', admitted_at = now() WHERE state = 'open'"))
    worker.heart.start()
    try:
        attempt(worker)
    finally:
        worker.heart.stop()
    [job] = of_system(worker.sessions)
    return job


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Worker:
    return Worker(sessions, settings, objects, cheap=True, types=(JOB_TYPE,))


@pytest.mark.feature("S2-09")
def test_a_clean_up_is_a_job_of_the_system_that_counts_what_it_did(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, objects: ObjectStore, settings: Settings, worker: Worker
) -> None:
    service = a_service(sessions)
    for key in ("old", "new"):
        service.submit(a_request(), idempotency_key=key)
    ref = ObjectRef(settings.s3_bucket, "uploads/old.csv")
    objects.put(ref, b"x", content_type="text/csv")
    with sessions.begin() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '2 days' WHERE key = 'old'"))
        session.execute(text("UPDATE jobs SET state = 'cancelled', finished_at = now()"))
        session.execute(
            text(
                "INSERT INTO artifacts"
                " (id, job_id, tenant, kind, name, content_type, bucket, key, size_bytes, expires_at)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), 'default', 'export', 'old.csv', 'text/csv', :bucket,"
                " :key, 1, now() - interval '1 minute')"
            ),
            {"bucket": ref.bucket, "key": ref.key},
        )

    job = done(monkeypatch, settings, worker, "clean_up")

    with sessions.begin() as session:
        assert session.execute(text("SELECT array_agg(key) FROM idempotency_keys")).scalar_one() == ["new"]
        assert session.execute(text("SELECT count(*) FROM artifacts WHERE removed_at IS NULL")).scalar_one() == 0
    assert ref.key not in [key for key, _ in objects.list(ref.bucket, "uploads/old")]
    assert (job.origin, job.outcome) == (Origin.SYSTEM, Outcome.SUCCESS)
    assert job.result == {"idempotency_keys": 1, "cached_values": 0, "artifacts": 1}


def test_a_duty_that_finds_nothing_ends_empty(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, worker: Worker
) -> None:
    job = done(monkeypatch, settings, worker, "gather")

    assert (job.outcome, job.result) == (Outcome.EMPTY, {"tables": 0})


def test_a_duty_has_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch, settings: Settings, sessions: Sessions) -> None:
    for duty in ("sweep", "gather", "sweep"):
        begin(monkeypatch, settings, duty)

    assert [job.config["duty"] for job in of_system(sessions)] == ["gather", "sweep"]


@pytest.mark.feature("S2-09")
def test_jobs_of_the_system_are_hidden_unless_an_admin_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, admin: Client, member: Client, stranger: Client
) -> None:
    begin(monkeypatch, settings, "sweep")

    usual = [admin.get("/v1/jobs"), admin.post("/v1/jobs:query", {}), stranger.get("/v1/jobs?system=true")]
    [shown] = admin.get("/v1/jobs?system=true").get_json()["items"]
    refused = member.get("/v1/jobs?system=true")

    assert [answer.get_json()["items"] for answer in usual] == [[], [], []]
    assert (shown["type"], shown["origin"], shown["created_by"]) == ("housekeeping", "system", "system")
    assert (refused.status_code, refused.get_json()["code"]) == (403, "auth.admin_needed")


@pytest.mark.feature("S2-09")
def test_nobody_but_the_system_makes_its_jobs(admin: Client) -> None:
    answer = admin.post("/v1/jobs", {"type": "housekeeping", "config": {"duty": "sweep"}})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "job_type.unknown")
    assert "housekeeping" not in answer.get_json()["detail"].partition("known are")[2]
    assert "housekeeping" not in {one["name"] for one in admin.get("/v1/job-types").get_json()["items"]}


def test_everything_that_beat_starts_is_a_task() -> None:
    from tasks import housekeeping

    names = {task.name for task in vars(housekeeping).values() if hasattr(task, "apply_async")}

    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} | {FIRE_TASK} == names
