"""Clean-up: what broke off is removed once nobody can come back for it, and nothing else is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from sqlalchemy import text

from app.dataplane.spooling import SPOOLING
from app.domain.clock import SystemClock
from app.domain.errors import NotFoundError, TransientError
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.persistence import export_names
from app.persistence.sessions import Sessions
from app.services.leftovers import Leftovers
from app.services.tables import Tables
from app.services.uploads import Ticket, Uploads
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.types.housekeeping import JOB_TYPE as HOUSEKEEPING
from tests.factories import a_request, stored
from tests.integration.exports import Exporting
from tests.integration.test_export_parts import Failing
from tests.integration.test_housekeeping import done
from tests.integration.worker import Worker

DAY = timedelta(days=1)


class In:
    """A clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


@pytest.fixture
def store(settings: Settings) -> S3Store:
    return S3Store(settings)


@pytest.fixture
def uploads(sessions: Sessions, settings: Settings, store: S3Store) -> Uploads:
    return Uploads(sessions, store, settings, SystemClock())


def sweep(sessions: Sessions, settings: Settings, after: timedelta) -> Leftovers:
    return Leftovers(sessions, S3Store(settings), settings, In(after))


def in_parts(uploads: Uploads, **how: Any) -> tuple[Ticket, list[dict[str, Any]]]:
    """An upload in two parts, both of which are sent."""
    ticket = uploads.create("default", filename="big.csv", created_by="key", parts=2, **how)
    body = b"x" * (5 * 2**20)
    etags = [requests.put(url, data=body, timeout=10).headers["ETag"] for url in ticket.part_urls]
    return ticket, [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]


def unfinished(store: S3Store, settings: Settings, key: str) -> int:
    return sum(one.ref.key == key for one in store.unfinished(settings.s3_bucket))


@pytest.mark.feature("S0-33")
def test_an_upload_that_was_abandoned_goes_with_its_parts_once_its_links_are_long_over(
    uploads: Uploads, store: S3Store, sessions: Sessions, settings: Settings
) -> None:
    ticket, _ = in_parts(uploads)
    key = ticket.upload.ref.key

    early = sweep(sessions, settings, 2 * DAY).end_abandoned_uploads()
    still = unfinished(store, settings, key)
    late = sweep(sessions, settings, 4 * DAY).end_abandoned_uploads()

    assert (early, still, late) == (0, 1, 1)
    assert unfinished(store, settings, key) == 0
    with pytest.raises(NotFoundError):
        uploads.get("default", ticket.upload.id)


def test_an_upload_that_arrived_stays_even_where_nobody_noted_it(
    uploads: Uploads, store: S3Store, sessions: Sessions, settings: Settings
) -> None:
    joined, parts = in_parts(uploads)
    store.complete_multipart(joined.upload.ref, str(joined.upload.upload_id), parts)
    single = uploads.create("default", filename="small.csv", created_by="key")
    requests.put(str(single.url), data=b"a\n", timeout=5)
    never = uploads.create("default", filename="never.csv", created_by="key")

    ended = [sweep(sessions, settings, 4 * DAY).end_abandoned_uploads() for _ in range(2)]

    assert ended == [1, 0]
    for ticket in (joined, single):
        upload, info = uploads.get("default", ticket.upload.id)
        assert upload.completed_at is not None
        assert info is not None
    with pytest.raises(NotFoundError):
        uploads.get("default", never.upload.id)


def _abort_all(store: S3Store, settings: Settings) -> None:
    for one in store.unfinished(settings.s3_bucket):
        store.abort_upload(one.ref, one.upload_id)


@pytest.mark.feature("S0-33")
def test_parts_that_no_job_can_join_go_and_those_of_others_stay(
    store: S3Store, sessions: Sessions, settings: Settings
) -> None:
    # The bucket is that of all tests, and some are of jobs that are killed.
    _abort_all(store, settings)
    with sessions.begin() as session:
        jobs = [stored(session, a_request(type="export", config={"table": "x"})) for _ in range(2)]
        session.execute(text("UPDATE jobs SET state = 'running' WHERE id = :id"), {"id": jobs[0].id})
        session.execute(text("UPDATE jobs SET state = 'cancelled' WHERE id = :id"), {"id": jobs[1].id})
        for name, job in (("mine/v1.2/day", jobs[0]), ("t/acme/v1.2/day", jobs[1]), ("mine/v1.2/day-00002", jobs[1])):
            export_names.claim(session, settings.s3_bucket, name, job.id)
        export_names.claim(session, "https://elsewhere theirs", "mine/night", jobs[1].id)
    kept = [f"uploads/{jobs[0].id}.csv", f"backups/{uuid4()}", "uploads/theirs.bin", f"t/acme/other/{uuid4()}.csv"]
    kept += ["mine/v1.2/day.csv", "mine/v1.2/day-00002.csv.gz", "mine/v1.2/days.csv", "mine/v1.2/day", "mine/night.csv"]
    gone = [f"uploads/{jobs[1].id}.csv", f"t/acme/uploads/{uuid4()}.csv", f"uploads/{uuid4()}/1/report.csv"]
    gone += ["t/acme/v1.2/day.json", "t/acme/v1.2/day-r1-00003.csv.gz.sealed", "mine/v1.2/day-00002-00001.parquet"]
    for key in kept + gone:
        store.client.create_multipart_upload(Bucket=settings.s3_bucket, Key=key)

    early = sweep(sessions, settings, DAY).drop_orphaned_parts()
    dropped = sweep(sessions, settings, 3 * DAY).drop_orphaned_parts()

    assert (early, dropped) == (0, len(gone))
    assert [unfinished(store, settings, key) for key in kept + gone] == [1] * len(kept) + [0] * len(gone)
    _abort_all(store, settings)


PAIRS = Table("pairs", (Column("a", ColumnType.BIGINT),), ("a",))


def _broken_off(sessions: Sessions, settings: Settings) -> tuple[Exporting, UUID, list[str]]:
    """An export in parts that failed when two of them were there; its files."""
    Tables(sessions).declare("default", PAIRS)
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.pairs (a) SELECT generate_series(1, 100)"))
    exporting = Exporting(settings, sessions, S3Store(settings))
    job = exporting.submit("pairs", max_rows_per_part=30, key="mine/{job_id}")
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'failed', finished_at = now() WHERE id = :id"), {"id": job.id})
    files = [key for key, _ in exporting.objects.list(settings.s3_bucket, f"mine/{job.id}")]
    assert len(files) == 2
    return exporting, job.id, files


@pytest.mark.feature("S0-33")
def test_the_files_of_an_export_that_failed_go_and_a_retry_begins_anew(sessions: Sessions, settings: Settings) -> None:
    exporting, job_id, files = _broken_off(sessions, settings)

    early = sweep(sessions, settings, DAY).remove_given_up_exports()
    removed = [sweep(sessions, settings, 3 * DAY).remove_given_up_exports() for _ in range(2)]

    assert (early, removed) == (0, [1, 0])
    assert list(exporting.objects.list(settings.s3_bucket, f"mine/{job_id}")) == []
    result = exporting.run(exporting.claim(exporting.jobs[-1]))
    assert (result.data["rows"], result.data["parts"], result.data["restarted"]) == (100, 4, 0)
    assert {part["key"] for part in exporting.manifest(result)["parts"]} > set(files)


def test_a_file_that_went_away_between_two_runs_is_written_again(sessions: Sessions, settings: Settings) -> None:
    exporting, job_id, files = _broken_off(sessions, settings)
    exporting.objects.delete([ObjectRef(settings.s3_bucket, files[0])])

    result = exporting.run(exporting.claim(exporting.jobs[-1]))

    bodies = [exporting.read(part["key"]) for part in exporting.manifest(result)["parts"]]
    assert sorted(int(line) for body in bodies for line in body.split()[1:]) == list(range(1, 101))
    assert f"{job_id}" in files[0]


def test_copies_of_a_source_go_when_their_import_ended_before_it_had_begun(
    sessions: Sessions, settings: Settings, store: S3Store
) -> None:
    with sessions.begin() as session:
        copied, begun = [stored(session, a_request(type="import", config={"table": "x"})) for _ in range(2)]
        ended = (
            "UPDATE jobs SET state = 'cancelled', finished_at = now(), checkpoint = CAST(:kept AS jsonb) WHERE id = :id"
        )
        session.execute(text(ended), {"id": copied.id, "kept": json.dumps(SPOOLING)})
        session.execute(text(ended), {"id": begun.id, "kept": '{"import": {}}'})
    kept = f"uploads/{begun.id}/1/source"
    gone = [f"uploads/{copied.id}/1/source", f"uploads/{copied.id}/2/sheet"]
    for key in [kept, *gone]:
        store.put(ObjectRef(settings.s3_bucket, key), b"x", content_type="text/plain")

    early = sweep(sessions, settings, DAY).remove_given_up_copies()
    removed = [sweep(sessions, settings, 3 * DAY).remove_given_up_copies() for _ in range(2)]

    assert (early, removed) == (0, [1, 0])
    assert list(store.list(settings.s3_bucket, f"uploads/{copied.id}/")) == []
    assert [key for key, _ in store.list(settings.s3_bucket, f"uploads/{begun.id}/")] == [kept]


def test_beat_has_a_job_of_the_system_sweep(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, settings: Settings, uploads: Uploads, store: S3Store
) -> None:
    ticket = uploads.create("default", filename="never.csv", created_by="key")
    with sessions.begin() as session:
        session.execute(text("UPDATE uploads SET created_at = now() - interval '4 days'"))

    job = done(monkeypatch, settings, Worker(sessions, settings, store, cheap=True, types=(HOUSEKEEPING,)), "sweep")

    with pytest.raises(NotFoundError):
        uploads.get("default", ticket.upload.id)
    assert job.result == {"uploads": 1, "parts": 0, "exports": 0, "copies": 0}
