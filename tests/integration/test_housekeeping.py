"""What beat starts."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.domain.ports import ObjectRef, ObjectStore
from app.persistence.sessions import Sessions
from app.scheduling.redbeat import FIRE_TASK
from beat_schedule import BEAT_SCHEDULE
from config.settings import Settings
from tests.factories import a_request, a_service


@pytest.fixture
def housekeeping(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> object:
    """The tasks, on the test's stores."""
    from tasks import housekeeping

    monkeypatch.setattr(housekeeping, "settings", lambda: settings)
    return housekeeping


def test_idempotency_keys_past_their_time_are_forgotten(sessions: Sessions, housekeeping: object) -> None:
    service = a_service(sessions)
    for key in ("old", "new"):
        service.submit(a_request(), idempotency_key=key)
    with sessions.begin() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '2 days' WHERE key = 'old'"))

    housekeeping.prune_idempotency_keys()  # type: ignore[attr-defined] # Celery's decorator has no types

    with sessions.begin() as session:
        assert session.execute(text("SELECT array_agg(key) FROM idempotency_keys")).scalar_one() == ["new"]


def test_expired_artifacts_lose_their_file_and_say_so(
    sessions: Sessions, objects: ObjectStore, settings: Settings, housekeeping: object
) -> None:
    ref = ObjectRef(settings.s3_bucket, "uploads/old.csv")
    objects.put(ref, b"x", content_type="text/csv")
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO artifacts"
                " (id, job_id, tenant, kind, name, content_type, bucket, key, size_bytes, expires_at)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), 'default', 'export', 'old.csv', 'text/csv', :bucket,"
                " :key, 1, now() - interval '1 minute')"
            ),
            {"bucket": ref.bucket, "key": ref.key},
        )

    housekeeping.remove_expired_artifacts()  # type: ignore[attr-defined] # Celery's decorator has no types

    with sessions.begin() as session:
        assert session.execute(text("SELECT count(*) FROM artifacts WHERE removed_at IS NULL")).scalar_one() == 0
    assert ref.key not in [key for key, _ in objects.list(ref.bucket, "uploads/old")]


def test_everything_that_beat_starts_is_a_task() -> None:
    from tasks import housekeeping

    names = {task.name for task in vars(housekeeping).values() if hasattr(task, "apply_async")}

    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} | {FIRE_TASK} == names
