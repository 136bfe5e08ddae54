"""Exports in parts: they tile the table, and go on where they were only while it is what it was."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from app.dataplane import export
from app.dataplane.export import copy_as
from app.domain.clock import SystemClock
from app.domain.errors import FenceLost, JobError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.persistence import readers
from app.persistence.sessions import Sessions
from app.services.leftovers import Leftovers
from app.services.reading import reader_of
from app.services.runs import Runs
from app.services.tables import Tables
from app.storage.multipart import S3Upload
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks import export_report, export_run
from tests.integration.exports import Exporting

PAIRS = Table(
    name="pairs",
    columns=(Column("a", ColumnType.TEXT), Column("b", ColumnType.BIGINT), Column("label", ColumnType.TEXT)),
    key=("a", "b"),
)


ADDED_COLUMN = "a column is declared"


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    Tables(sessions).declare("default", PAIRS)
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.pairs (a, b, label) SELECT 'k' || g % 7, g, "
                "repeat(E'x,\"\\n', g % 9) FROM generate_series(1, 1000) AS g"
            )
        )
    return Exporting(settings, sessions, S3Store(settings))


def parts(exporting: Exporting, result: Result) -> list[list[list[str]]]:
    """The rows of every file, each without its header."""
    keys = [part["key"] for part in exporting.manifest(result)["parts"]]
    return [list(csv.reader(io.StringIO(exporting.read(key).decode(), newline="")))[1:] for key in keys]


def whole(exporting: Exporting) -> list[list[str]]:
    body = exporting.body(exporting.export("pairs", vql={"order_by": [{"order_by": "a"}]}))
    return list(csv.reader(io.StringIO(body.decode(), newline="")))[1:]


@pytest.mark.parametrize("parallel", [1, 3])
def test_parts_by_rows_tile_the_table_in_the_keys_order(exporting: Exporting, parallel: int) -> None:
    result = exporting.export("pairs", max_rows_per_part=300, parallel=parallel)

    found = parts(exporting, result)
    assert [len(part) for part in found] == [300, 300, 300, 100]
    assert [row for part in found for row in part] == whole(exporting)
    assert result.data["rows"] == 1_000


def test_all_parts_are_read_as_the_tenants_role(exporting: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def copy(session: Session, *arguments: Any, **named: Any) -> int:
        seen.append(session.execute(text("SELECT current_user")).scalar_one())
        return copy_as(session, *arguments, **named)

    monkeypatch.setattr(export_run, "copy_as", copy)
    exporting.export("pairs", max_rows_per_part=400, parallel=2, filter_invalid=True)
    exporting.export("pairs")

    with exporting.sessions.begin() as session:
        ours = session.execute(text("SELECT current_user")).scalar_one()
    assert seen == [reader_of(exporting.sessions, "default")] * 4
    assert ours not in seen


def test_an_export_reads_as_our_own_role_where_there_can_be_no_other(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(exporting)

    def refused(*_: Any) -> None:
        raise ProgrammingError("CREATE ROLE", {}, InsufficientPrivilege("permission denied to create role"))

    monkeypatch.setattr(readers, "is_ready", lambda *_: False)
    monkeypatch.setattr(readers, "prepare", refused)
    found = parts(exporting, exporting.export("pairs", max_rows_per_part=400, parallel=2))

    assert [row for part in found for row in part] == before


@pytest.mark.parametrize(("file_format", "compression"), [("csv", "none"), ("ndjson", "gzip"), ("json", "none")])
def test_no_part_is_larger_than_asked_for(exporting: Exporting, file_format: str, compression: str) -> None:
    result = exporting.export(
        "pairs", max_bytes_per_part=4_096, format=file_format, compression=compression, parallel=2
    )

    manifest = exporting.manifest(result)
    sizes = [part["plain_bytes"] for part in manifest["parts"]]
    assert max(sizes) <= 4_096
    assert len(sizes) > 3
    assert sum(part["rows"] for part in manifest["parts"]) == manifest["rows"] == 1_000


def test_each_part_is_what_the_manifest_says(exporting: Exporting) -> None:
    result = exporting.export("pairs", max_rows_per_part=400, compression="zstd")

    for part in exporting.manifest(result)["parts"]:
        body = exporting.read(part["key"])
        assert (part["bytes"], part["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_an_empty_table_is_one_part_of_a_header(exporting: Exporting) -> None:
    nothing = {"where": {"keyword_match": {"must": {"a": ["none"]}}}}

    result = exporting.export("pairs", max_rows_per_part=10, vql=nothing)

    assert parts(exporting, result) == [[]]


def test_more_parts_than_there_may_be_fail_with_what_to_do(exporting: Exporting, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.dataplane.export_ranges.MAX_PARTS", 3)

    with pytest.raises(JobError) as caught:
        exporting.export("pairs", max_rows_per_part=300)

    assert caught.value.code == "export.too_many_parts"


class Failing:
    """An S3 that loses its connection at the start of the upload of this number."""

    def __init__(self, objects: S3Store, at: int) -> None:
        self._objects = objects
        self._left = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def start_upload(self, ref: ObjectRef, **what: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise TransientError("cut", code="s3.unavailable")
        return self._objects.start_upload(ref, **what)


def test_what_was_finished_is_not_written_again_while_the_table_stays(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    again = exporting.claim(job)
    kept = [one["key"] for one in again.checkpoint["files"] if one["etags"] or one["joined"]]
    before = {key: exporting.objects.head(ObjectRef("haulier-test", key)).etag for key in kept}

    result = exporting.run(again, Failing(exporting.objects, at=3))

    assert len(kept) == 2
    assert {key: exporting.objects.head(ObjectRef("haulier-test", key)).etag for key in kept} == before
    assert [row for part in parts(exporting, result) for row in part] == whole(exporting)
    assert result.data["restarted"] == 0


def test_an_export_that_goes_on_tells_the_rows_of_its_finished_files_too(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))

    with pytest.raises(TransientError):
        exporting.run(exporting.claim(job), Failing(exporting.objects, at=2))

    assert exporting.seen(job).progress.rows_done >= 600


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t_default.pairs SET label = 'new' WHERE b = 1",
        "DELETE FROM t_default.pairs WHERE b = 1",
        "INSERT INTO t_default.pairs (a, b) VALUES ('k', 0)",
        ADDED_COLUMN,
    ],
)
def test_a_table_that_changed_is_exported_anew_and_the_manifest_says_so(
    exporting: Exporting, sessions: Sessions, change: str
) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    if change == ADDED_COLUMN:
        columns = (*PAIRS.columns, Column("more", ColumnType.TEXT))
        Tables(sessions).declare("default", replace(PAIRS, version=2, columns=columns))
    else:
        with sessions.begin() as session:
            session.execute(text(change))

    result = exporting.run(exporting.claim(job))

    assert [row for part in parts(exporting, result) for row in part] == whole(exporting)
    assert exporting.manifest(result)["restarted"] == 1
    named = {part["key"] for part in exporting.manifest(result)["parts"]} | {result.data["manifest_key"]}
    assert files_of(exporting, job) == named


def asks_for(exporting: Exporting, job: Job, changes: dict[str, Any]) -> None:
    with exporting.sessions.begin() as session:
        session.execute(
            text("UPDATE jobs SET config = config || CAST(:changes AS jsonb) WHERE id = :id"),
            {"id": job.id, "changes": json.dumps(changes)},
        )


def test_files_of_one_config_and_another_never_make_one_export(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    asks_for(exporting, job, {"format": "ndjson"})

    with pytest.raises(JobError) as caught:
        exporting.run(exporting.claim(job))

    assert caught.value.code == "export.config_changed"
    asks_for(exporting, job, {"format": "csv", "parallel": 2})
    result = exporting.run(exporting.claim(job))
    assert [row for part in parts(exporting, result) for row in part] == whole(exporting)
    assert result.data["restarted"] == 0


def test_an_export_that_has_written_no_file_goes_by_its_new_config(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=1))
    asks_for(exporting, job, {"format": "ndjson", "key": "mine/{job_id}"})

    result = exporting.run(exporting.claim(job))

    keys = [part["key"] for part in exporting.manifest(result)["parts"]]
    assert keys == [f"mine/{job.id}-{number:05}.ndjson" for number in range(1, 5)]
    assert sum(exporting.read(key).count(b"\n") for key in keys) == 1_000


class Killed(BaseException):
    """The process is gone."""


def killed(*_: Any) -> None:
    raise Killed


class Dying:
    """An S3 to which the process no more comes when it is to remove something."""

    def __init__(self, objects: S3Store) -> None:
        self._objects = objects

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    delete = killed


def test_an_export_that_is_lost_at_about_the_same_place_each_time_fails(
    exporting: Exporting, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_report, "_REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(export, "BLOCK_BYTES", 1_024)
    monkeypatch.setattr(S3Upload, "finish_parts", killed)
    job = exporting.submit("pairs")

    for _ in range(50):
        with pytest.raises(Killed):
            exporting.run(job)
        Runs(sessions).rescue(exporting.seen(job), "lost", max_rescues=5)
        job = exporting.seen(job)
        if job.state is JobState.FAILED:
            break
        assert job.progress.rows_done > 0
        job = exporting.claim(job)

    assert (job.error or {}).get("code") == "ERR_WORKER_LOST"


def begun_anew_and_killed(exporting: Exporting) -> Job:
    """An export that was killed when it had given up its two files, but had not removed them yet."""
    job = exporting.submit("pairs", max_rows_per_part=300)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    with exporting.sessions.begin() as session:
        session.execute(text("DELETE FROM t_default.pairs WHERE b = 1"))
    with pytest.raises(Killed):
        exporting.run(exporting.claim(job), Dying(exporting.objects))
    assert len(files_of(exporting, job)) == 2
    return job


def files_of(exporting: Exporting, job: Job) -> set[str]:
    return {key for key, _ in exporting.objects.list("haulier-test", "uploads/") if str(job.id) in key}


def test_files_that_a_killed_run_gave_up_are_removed_by_the_next(exporting: Exporting) -> None:
    job = begun_anew_and_killed(exporting)

    result = exporting.run(exporting.claim(job))

    manifest = exporting.manifest(result)
    assert files_of(exporting, job) == {*(part["key"] for part in manifest["parts"]), result.data["manifest_key"]}
    assert manifest["restarted"] == 1


def test_files_that_a_killed_run_gave_up_are_swept_when_the_job_fails(exporting: Exporting) -> None:
    job = begun_anew_and_killed(exporting)
    with exporting.sessions.begin() as session:
        ended = "UPDATE jobs SET state = 'failed', finished_at = now() - interval '3 days' WHERE id = :id"
        session.execute(text(ended), {"id": job.id})

    Leftovers(exporting.sessions, exporting.objects, exporting.settings, SystemClock()).remove_given_up_exports()

    assert files_of(exporting, job) == set()


def test_a_former_holder_joins_nothing(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    exporting.claim(job)

    with pytest.raises(FenceLost):
        exporting.run(job)

    assert files_of(exporting, job) == set()


def test_a_run_after_the_last_one_finds_everything_done(exporting: Exporting) -> None:
    job = exporting.submit("pairs", max_rows_per_part=300)
    first = exporting.run(job)
    manifest = exporting.read(first.data["manifest_key"])

    second = exporting.run(exporting.claim(job), Failing(exporting.objects, at=1))

    assert second.data == first.data
    assert json.loads(exporting.read(second.data["manifest_key"])) == json.loads(manifest)
