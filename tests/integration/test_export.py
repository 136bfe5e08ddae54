"""The export job: what the file holds, what it costs to be killed at any point, what it refuses."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
import requests
from faulty_s3 import FaultyS3
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.domain.clock import SystemClock
from app.domain.errors import (
    FenceLost,
    ForbiddenError,
    InvalidRequestError,
    JobCancelled,
    JobError,
    NotFoundError,
    TransientError,
)
from app.domain.jobs import Job, Outcome, SubmitJob
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.persistence import jobs
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from app.services.artifacts import Artifacts
from app.services.runs import is_connection_lost
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.export_csv_file import JOB_TYPE, ExportConfig, check, run
from tests.factories import stored
from tests.integration.worker import within

COLUMNS = ["id", "uuid", "first_name", "departments", "created_at", "country"]


def add_contacts(sessions: Sessions, tenant: str, rows: int) -> None:
    Tables(sessions).get(tenant, "contacts")
    with sessions.begin() as session:
        session.execute(
            text(
                f"""
                INSERT INTO "t_{tenant}".contacts (id, uuid, first_name, departments, created_at, country, title)
                SELECT g, md5(g::text)::uuid,
                       CASE g % 4 WHEN 0 THEN NULL WHEN 1 THEN 'Zoë, "Z"' WHEN 2 THEN E'two\\nlines' ELSE 'x' || g END,
                       CASE g % 3 WHEN 0 THEN NULL ELSE ARRAY['a,b', 'c' || g] END,
                       timestamptz '2026-01-01 00:00+00' + g * interval '1 second',
                       CASE g % 2 WHEN 0 THEN 'US' ELSE 'DE' END, repeat('padding ', 20)
                FROM generate_series(1, :rows) AS g
                """
            ),
            {"rows": rows},
        )


@dataclass
class Runner:
    """Makes export jobs that a worker holds, and runs them."""

    sessions: Sessions
    settings: Settings
    objects: S3Store

    def job(self, tenant: str = "acme", **config: Any) -> Job:
        full = {"service": "contact", "vql": {"select_columns": COLUMNS}} | config
        request = SubmitJob(tenant, JOB_TYPE.name, full, "test")
        with self.sessions.begin() as session:
            job = stored(session, request)
        return self.claimed(job)

    def claimed(self, job: Job) -> Job:
        """The job as a worker holds it now, whoever held it before."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET state = 'running', fence = fence + 1 WHERE id = :id"), {"id": job.id})
            return jobs.get(session, job.tenant, job.id)

    def context(self, job: Job, objects: Any = None) -> RunContext:
        return RunContext(
            job, settings=self.settings, sessions=self.sessions, objects=objects or self.objects, clock=SystemClock()
        )

    def run(self, job: Job, objects: Any = None) -> dict[str, Any]:
        return run(self.context(job, objects), ExportConfig.model_validate(job.config)).data

    def read(self, data: Mapping[str, Any], tenant: str = "acme") -> bytes:
        root = "" if tenant == "default" else f"t/{tenant}/"
        with self.objects.open(ObjectRef(data["s3_bucket"], root + data["s3_key"])) as reader:
            return reader.read()


@pytest.fixture
def runner(sessions: Sessions, settings: Settings) -> Runner:
    with sessions.begin() as session:
        for tenant in ("acme", "other"):
            add_tenant(session, tenant)
    return Runner(sessions, settings, S3Store(settings))


@pytest.fixture
def proxy(settings: Settings) -> Iterator[FaultyS3]:
    proxy = FaultyS3(str(settings.s3_endpoint))
    yield proxy
    proxy.close()


def copied(sessions: Sessions, select: str, *, header: bool = True) -> bytes:
    """What Postgres itself writes for a SELECT."""
    out = io.BytesIO()
    with sessions.begin() as session:
        cursor: Any = session.connection().connection.cursor()
        cursor.copy_expert(f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER {header})", out)
    return out.getvalue()


def names(objects: S3Store, job: Job) -> list[str]:
    """The job's files, by name."""
    return [key.rsplit("/", 1)[1] for key, _ in objects.list("haulier-test", "t/acme/uploads/") if str(job.id) in key]


@pytest.mark.feature("S2-69", "S4-09", "S4-20", "S4-32")
def test_the_file_holds_exactly_what_the_query_finds(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 5_000)
    vql = {"where": {"keyword_match": {"must": {"country": ["US"]}}}, "select_columns": COLUMNS}

    data = runner.run(runner.job(vql=vql | {"order_by": [{"order_by": "created_at", "order_direction": "desc"}]}))

    body = runner.read(data)
    select = f"SELECT {', '.join(COLUMNS)} FROM t_acme.contacts WHERE country = 'US' ORDER BY created_at DESC"
    assert body == copied(sessions, select)
    assert data["rows"] == 2_500
    assert data["columns"] == COLUMNS
    assert (data["bytes"], data["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert len(list(csv.reader(io.StringIO(body.decode())))) == 2_501


@pytest.mark.feature("S0-24")
def test_a_gzip_file_holds_the_same_as_a_plain_one(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 3_000)
    vql = {"select_columns": COLUMNS, "order_by": [{"order_by": "id"}]}

    plain = runner.run(runner.job(vql=vql))
    packed = runner.run(runner.job(vql=vql, compression="gzip"))

    stored = runner.read(packed)
    assert gzip.decompress(stored) == runner.read(plain)
    assert packed["s3_key"].endswith(".csv.gz")
    assert packed["csv_sha256"] == plain["sha256"] == plain["csv_sha256"]
    assert packed["sha256"] == hashlib.sha256(stored).hexdigest()
    assert packed["bytes"] == len(stored) < packed["csv_bytes"]


@pytest.mark.feature("S4-37")
def test_a_file_of_several_parts_is_whole(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 120_000)

    data = runner.run(runner.job(vql={"select_columns": [*COLUMNS, "title"]}))

    body = runner.read(data)
    assert len(body) > 2 * 8 * 2**20
    assert hashlib.sha256(body).hexdigest() == data["sha256"]
    assert sum(1 for _ in csv.reader(io.StringIO(body.decode()))) == 120_001


def test_without_a_header_the_file_begins_with_the_first_row(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 3)

    data = runner.run(runner.job(vql={"select_columns": ["id"], "order_by": [{"order_by": "id"}]}, header=False))

    assert runner.read(data) == b"1\n2\n3\n"


def test_a_query_that_finds_nothing_leaves_a_header_and_says_so(runner: Runner) -> None:
    job = runner.job(vql={"select_columns": ["id", "email"]})

    result = run(runner.context(job), ExportConfig.model_validate(job.config))

    assert runner.read(result.data) == b"id,email\n"
    assert (result.outcome, result.data["rows"]) == (Outcome.EMPTY, 0)


@pytest.mark.feature("S4-34")
def test_a_limit_takes_the_first_rows_of_the_order(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 50)
    vql = {"select_columns": ["id"], "order_by": [{"order_by": "id", "order_direction": "desc"}], "limit": 3}

    data = runner.run(runner.job(vql=vql))

    assert runner.read(data) == b"id\n50\n49\n48\n"


def test_values_that_look_like_sql_are_only_values(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 10)
    evil = ["'; DROP TABLE t_acme.contacts; --", "%s %(v0)s :v0 %%", "\\'"]
    vql = {"where": {"keyword_match": {"must_not": {"country": evil}}}, "select_columns": ["id"]}

    data = runner.run(runner.job(vql=vql))

    assert data["rows"] == 10


def test_another_tenants_rows_are_never_in_the_file_and_its_place_is_not_ours(
    runner: Runner, sessions: Sessions
) -> None:
    add_contacts(sessions, "acme", 10)
    add_contacts(sessions, "other", 20)

    data = runner.run(runner.job(tenant="other"))

    assert data["rows"] == 20
    runner.objects.head(ObjectRef("haulier-test", f"t/other/{data['s3_key']}"))
    with pytest.raises(JobError, match="no object"):
        runner.objects.head(ObjectRef("haulier-test", f"t/acme/{data['s3_key']}"))


@pytest.mark.feature("S2-68", "S2-69")
def test_the_artifacts_are_the_file_and_a_manifest_with_links(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 10)
    job = runner.job(compression="gzip")
    data = runner.run(job)
    artifacts = Artifacts(sessions, runner.objects, runner.settings, SystemClock())

    file, manifest = artifacts.of_job("acme", job.id)

    assert (file.artifact.rows, file.artifact.sha256, file.s3_key) == (10, data["sha256"], data["s3_key"])
    assert file.artifact.name == f"{job.id}.csv.gz"
    downloaded = requests.get(file.url, timeout=5)
    assert downloaded.content == runner.read(data)
    assert downloaded.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{job.id}.csv.gz"
    said = json.loads(requests.get(manifest.url, timeout=5).content)
    same = ("rows", "sha256", "bytes", "csv_sha256", "csv_bytes", "columns", "s3_key", "consistent")
    assert {name: said[name] for name in same} == {name: data[name] for name in same}
    assert said["query"] == job.config["vql"]
    assert file.artifact.expires_at is not None
    left = file.artifact.expires_at - SystemClock().now()
    assert timedelta(seconds=runner.settings.artifact_ttl_s - 60) < left
    assert artifacts.get("acme", file.artifact.id).artifact == file.artifact
    for look in (lambda: artifacts.of_job("other", job.id), lambda: artifacts.get("other", file.artifact.id)):
        with pytest.raises(NotFoundError):
            look()


@pytest.mark.feature("S0-33")
def test_expired_artifacts_go_with_their_files_and_others_stay(runner: Runner, sessions: Sessions) -> None:
    old, young = runner.job(), runner.job()
    for job in (old, young):
        runner.run(job)
    artifacts = Artifacts(sessions, runner.objects, runner.settings, SystemClock())
    with sessions.begin() as session:
        session.execute(
            text("UPDATE artifacts SET expires_at = now() - interval '1 s' WHERE job_id = :id"), {"id": old.id}
        )

    removed = [artifacts.remove_expired(), artifacts.remove_expired()]

    assert removed == [2, 0]
    assert names(runner.objects, old) == []
    assert [one.url for one in artifacts.of_job("acme", old.id)] == [None, None]
    assert len(names(runner.objects, young)) == len(artifacts.of_job("acme", young.id)) == 2


@pytest.mark.feature("S0-20")
def test_a_tampered_link_is_refused(runner: Runner, sessions: Sessions) -> None:
    job = runner.job()
    runner.run(job)
    file, _ = Artifacts(sessions, runner.objects, runner.settings, SystemClock()).of_job("acme", job.id)

    answer = requests.get(file.url.replace("/t/acme/", "/t/other/"), timeout=5)

    assert answer.status_code == 403


@pytest.mark.feature("S0-14")
def test_progress_is_written_and_exact_at_the_end(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 1_000)
    job = runner.job()

    data = runner.run(job)

    with sessions.begin() as session:
        progress = jobs.get(session, "acme", job.id).progress
    assert (progress.rows_done, progress.rows_total, progress.bytes_done) == (1_000, 1_000, data["csv_bytes"])


# Crashes


class Breaks:
    """An object store that breaks at one call, as a process that is killed there would."""

    def __init__(
        self, objects: S3Store, break_at: str, *, after: bool = False, error: BaseException | None = None
    ) -> None:
        self._objects = objects
        self._break_at = break_at
        self._after = after
        self._error = error or KeyboardInterrupt("killed")

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._objects, name)
        return self._breaking(real) if name == self._break_at else real

    def _breaking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._after:
                real(*args, **kwargs)
            raise self._error

        return call

    def start_upload(self, ref: ObjectRef, **kwargs: Any) -> Any:
        upload = self._objects.start_upload(ref, **kwargs)
        broken = {"upload.complete": "complete", "upload.finish_parts": "finish_parts", "upload.write": "write"}
        if (method := broken.get(self._break_at)) is not None:
            setattr(upload, method, self._breaking(getattr(upload, method)))
            # A killed process aborts nothing.
            upload.abort = lambda: None
        return upload


@pytest.mark.parametrize(
    ("at", "after"),
    [
        ("upload.write", False),
        ("upload.finish_parts", False),
        ("upload.finish_parts", True),
        ("upload.complete", False),
        ("upload.complete", True),
        ("put", False),
        ("put", True),
    ],
)
def test_a_run_after_a_crash_ends_with_one_whole_file(runner: Runner, sessions: Sessions, at: str, after: bool) -> None:
    add_contacts(sessions, "acme", 2_000)
    job = runner.job(vql={"select_columns": COLUMNS, "order_by": [{"order_by": "id"}]})
    with pytest.raises(KeyboardInterrupt):
        runner.run(job, Breaks(runner.objects, at, after=after))

    data = runner.run(runner.claimed(job))

    body = runner.read(data)
    assert body == copied(sessions, f"SELECT {', '.join(COLUMNS)} FROM t_acme.contacts ORDER BY id")
    assert (data["sha256"], data["rows"]) == (hashlib.sha256(body).hexdigest(), 2_000)
    assert names(runner.objects, job) == [f"{job.id}.csv", f"{job.id}.csv.manifest.json"]
    with sessions.begin() as session:
        assert session.execute(text("SELECT count(*) FROM artifacts")).scalar_one() == 2


def test_a_finished_file_is_not_written_anew_after_a_crash(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 100)
    job = runner.job(vql={"select_columns": ["id"], "order_by": [{"order_by": "id"}]})
    with pytest.raises(KeyboardInterrupt):
        runner.run(job, Breaks(runner.objects, "upload.complete"))
    with sessions.begin() as session:
        session.execute(text("DELETE FROM t_acme.contacts"))

    data = runner.run(runner.claimed(job))

    assert (data["rows"], runner.read(data).count(b"\n")) == (100, 101)


def test_parts_that_were_swept_away_are_written_anew(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 100)
    job = runner.job()
    with pytest.raises(KeyboardInterrupt):
        runner.run(job, Breaks(runner.objects, "upload.complete"))
    again = runner.claimed(job)
    checkpoint = again.checkpoint or {}
    runner.objects.abort_upload(ObjectRef(checkpoint["bucket"], checkpoint["key"]), checkpoint["upload_id"])

    data = runner.run(again)

    assert hashlib.sha256(runner.read(data)).hexdigest() == data["sha256"]


def test_a_file_that_was_replaced_by_another_is_written_anew(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 100)
    job = runner.job()
    with pytest.raises(KeyboardInterrupt):
        runner.run(job, Breaks(runner.objects, "upload.complete", after=True))
    again = runner.claimed(job)
    checkpoint = again.checkpoint or {}
    runner.objects.put(ObjectRef(checkpoint["bucket"], checkpoint["key"]), b"other", content_type="text/csv")

    data = runner.run(again)

    assert (data["rows"], runner.read(data).count(b"\n") > 100) == (100, True)
    assert hashlib.sha256(runner.read(data)).hexdigest() == data["sha256"]


def test_a_failure_to_join_is_transient_and_the_next_attempt_joins(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 100)
    job = runner.job()
    with pytest.raises(TransientError):
        runner.run(job, Breaks(runner.objects, "upload.complete", error=TransientError("S3 answered 503")))

    data = runner.run(runner.claimed(job))

    assert data["rows"] == 100


def test_a_zombie_cannot_join_its_parts_once_another_run_began(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 100)
    zombie = runner.job()
    successor: list[dict[str, Any]] = []

    class Overtaken(Breaks):
        def start_upload(self, ref: ObjectRef, **kwargs: Any) -> Any:
            upload = self._objects.start_upload(ref, **kwargs)
            finish = upload.finish_parts

            def finish_late() -> Any:
                parts = finish()
                with sessions.begin() as session:
                    session.execute(text("DELETE FROM t_acme.contacts WHERE id > 60"))
                successor.append(runner.run(runner.claimed(zombie)))
                return parts

            upload.finish_parts = finish_late
            return upload

    with pytest.raises(FenceLost):
        runner.run(zombie, Overtaken(runner.objects, "nothing"))

    assert successor[0]["rows"] == 60
    assert hashlib.sha256(runner.read(successor[0])).hexdigest() == successor[0]["sha256"]


def test_a_run_without_the_fence_writes_nothing(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 10)
    job = runner.job()
    stale = replace(job, fence=job.fence - 1)

    with pytest.raises(FenceLost):
        runner.run(stale)

    assert names(runner.objects, job) == []


@pytest.mark.feature("S0-11")
def test_a_cancelled_export_stops_while_rows_flow_and_leaves_no_file(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 60_000)
    job = runner.job(vql={"select_columns": [*COLUMNS, "title"]})
    context = runner.context(job)
    checks = iter(range(100))
    real_check = context.check

    def check_and_cancel() -> None:
        if next(checks) == 4:
            context.stop(JobCancelled("user"))
        real_check()

    context.check = check_and_cancel  # type: ignore[method-assign]  # to act in the middle of it

    with pytest.raises(JobCancelled):
        run(context, ExportConfig.model_validate(job.config))

    assert names(runner.objects, job) == []
    with sessions.begin() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def a_first_row_that_waits_for(sessions: Sessions, what: str) -> None:
    add_contacts(sessions, "acme", 1)
    with sessions.begin() as session:
        session.execute(text(f"CREATE FUNCTION t_acme.slow() RETURNS text LANGUAGE sql AS 'SELECT {what}::text'"))
        session.execute(text("ALTER TABLE t_acme.contacts RENAME TO held"))
        session.execute(text("CREATE VIEW t_acme.contacts AS SELECT h.id, t_acme.slow() AS uuid FROM t_acme.held AS h"))
        # The role that reads is granted tables, and no views.
        session.execute(text("GRANT SELECT ON t_acme.contacts TO PUBLIC"))


def progressed_at(sessions: Sessions, job: Job) -> datetime | None:
    """When the job last said that it waits for its first row."""
    with sessions.begin() as session:
        asked = text("SELECT progressed_at FROM jobs WHERE id = :id AND stage = 'querying'")
        return session.execute(asked, {"id": job.id}).scalar_one_or_none()


@pytest.fixture
def hasty(runner: Runner) -> Runner:
    return replace(runner, settings=runner.settings.model_copy(update={"stall_timeout_s": 0.4}))


def test_an_export_whose_first_row_is_far_away_says_that_it_goes_on(hasty: Runner, sessions: Sessions) -> None:
    a_first_row_that_waits_for(sessions, "pg_advisory_xact_lock_shared(7)")
    job = hasty.job(vql={"select_columns": ["id", "uuid"]})
    words: set[datetime | None] = set()
    with ThreadPoolExecutor(1) as pool, sessions() as holder:
        holder.execute(text("SELECT pg_advisory_lock(7)"))
        exported = pool.submit(hasty.run, job)

        said = within(20, lambda: words.add(progressed_at(sessions, job)) or len(words) > 3)
        holder.execute(text("SELECT pg_advisory_unlock(7)"))

    assert said
    assert exported.result()["rows"] == 1


def test_an_export_that_waits_for_its_first_row_ends_when_it_has_lost_its_fence(
    hasty: Runner, sessions: Sessions
) -> None:
    a_first_row_that_waits_for(sessions, "pg_sleep(60)")
    job = hasty.job(vql={"select_columns": ["id", "uuid"]})
    with ThreadPoolExecutor(1) as pool:
        exported = pool.submit(hasty.run, job)

        assert within(20, lambda: progressed_at(sessions, job))
        hasty.claimed(job)

        with pytest.raises(FenceLost):
            exported.result(timeout=30)


def test_an_export_whose_first_row_is_far_away_stops_at_once(runner: Runner, sessions: Sessions) -> None:
    a_first_row_that_waits_for(sessions, "pg_sleep(30)")
    job = runner.job(vql={"select_columns": ["id", "uuid"]})
    context = runner.context(job)
    threading.Timer(0.5, lambda: context.stop(JobCancelled("user"))).start()
    started = monotonic()

    with pytest.raises(JobCancelled):
        run(context, ExportConfig.model_validate(job.config))

    assert monotonic() - started < 10
    assert names(runner.objects, job) == []


@pytest.mark.feature("S2-97", "S4-37")
def test_s3_failing_while_rows_flow_is_transient_and_leaves_no_file(
    runner: Runner, sessions: Sessions, proxy: FaultyS3
) -> None:
    add_contacts(sessions, "acme", 120_000)
    job = runner.job(vql={"select_columns": [*COLUMNS, "title"]})
    shaky = S3Store(runner.settings.model_copy(update={"s3_endpoint": proxy.url}), read_timeout_s=0.5, attempts=1)
    proxy.fault = lambda method, path: "503" if "partNumber=2" in path else None

    with pytest.raises(TransientError):
        runner.run(job, shaky)

    assert names(runner.objects, job) == []
    assert any(method == "DELETE" for method, _ in proxy.requests)


def test_postgres_ending_the_backend_loses_the_connection_not_the_job(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 120_000)
    job = runner.job(vql={"select_columns": [*COLUMNS, "title"]})
    context = runner.context(job)
    checks = iter(range(1_000))

    def end_the_copy() -> None:
        if next(checks) == 3:
            with sessions.begin() as session:
                session.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT m.%'")
                )

    context.check = end_the_copy  # type: ignore[method-assign]  # to act in the middle of it

    with pytest.raises(OperationalError) as error:
        run(context, ExportConfig.model_validate(job.config))

    assert is_connection_lost(error.value)
    data = runner.run(runner.claimed(job))
    assert data["rows"] == 120_000


# What is refused


@pytest.fixture
def submission(runner: Runner) -> TenantSubmission:
    tables = Tables(runner.sessions)
    tables.declare("acme", Table("things", (Column("id", ColumnType.BIGINT),), key=("id",)))
    return TenantSubmission("acme", settings=runner.settings, sessions=runner.sessions, tables=tables)


@pytest.mark.feature("S4-33")
@pytest.mark.parametrize("vql", [{}, {"select_columns": []}, {"select_columns": None}])
@pytest.mark.parametrize("table", [{"service": "company"}, {"table": "things"}])
def test_columns_are_required_at_submit(
    submission: TenantSubmission, vql: dict[str, Any], table: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        check(submission, ExportConfig.model_validate({"vql": vql} | table))

    assert error.value.code == "vql.select_columns_required"
    assert error.value.problems[0].pointer == "/config/vql/select_columns"


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"where": {"keyword_match": {"must": {"contry": "US"}}}}, "/config/vql/where/keyword_match/must/contry"),
        ({"select_columns": ["id", "name"]}, "/config/vql/select_columns/1"),
        ({"page": 2}, "/config/vql/page"),
        ({"company_config": {"populate": True}}, "/config/vql/company_config"),
    ],
)
@pytest.mark.parametrize("table", [{"service": "contact"}, {"table": "things"}])
def test_a_query_that_is_none_for_exports_is_refused_at_submit(
    submission: TenantSubmission, table: dict[str, str], more: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        check(submission, ExportConfig.model_validate(table | {"vql": {"select_columns": ["id"]} | more}))

    assert error.value.problems[0].pointer == pointer


def test_a_bucket_or_table_that_a_tenant_may_not_use_is_refused_at_submit(submission: TenantSubmission) -> None:
    vql = {"select_columns": ["id"]}

    with pytest.raises(ForbiddenError):
        check(submission, ExportConfig(service="contact", table=None, vql=vql, s3_bucket="someone-elses"))
    with pytest.raises(InvalidRequestError) as error:
        check(submission, ExportConfig(service=None, table="nothing", vql=vql, s3_bucket=None))

    assert error.value.problems[0].pointer == "/config/table"


@pytest.mark.parametrize(
    "config",
    [
        {"vql": {}},
        {"vql": {}, "service": "contact", "table": "contacts"},
        {"service": "people", "vql": {}},
        {"service": "contact"},
        {"service": "contact", "vql": []},
        {"service": "contact", "vql": {}, "compression": "zip"},
        {"service": "contact", "vql": {}, "s3_key": "mine.csv"},
        {"service": "contact", "vql": {}, "header": "yes"},
    ],
)
def test_a_config_of_another_shape_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ExportConfig.model_validate(config)


def test_an_unknown_table_and_an_unknown_column_of_a_declared_one_fail_the_run(runner: Runner) -> None:
    with pytest.raises(NotFoundError):
        runner.run(runner.job(service=None, table="nothing"))


def test_a_bucket_that_is_not_allowed_or_not_there_fails_the_run(runner: Runner) -> None:
    allowing = runner.settings.model_copy(update={"s3_allowed_buckets": frozenset({"allowed-but-missing"})})

    with pytest.raises(ForbiddenError):
        runner.run(runner.job(s3_bucket="someone-elses"))
    with pytest.raises(JobError) as error:
        Runner(runner.sessions, allowing, runner.objects).run(runner.job(s3_bucket="allowed-but-missing"))

    assert error.value.code == "s3.no_such_bucket"
    assert not isinstance(error.value, TransientError)


def test_a_filter_on_companies_works_in_an_export(runner: Runner, sessions: Sessions) -> None:
    add_contacts(sessions, "acme", 10)
    Tables(sessions).get("acme", "companies")
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_acme.companies (uuid, name) VALUES (:id, 'Big')"), {"id": UUID(int=1)})
        session.execute(text("UPDATE t_acme.contacts SET company_id = :id WHERE id < 4"), {"id": UUID(int=1)})
    vql = {"where": {"keyword_match": {"must": {"company_name": "Big"}}}, "select_columns": ["id"]}

    data = runner.run(runner.job(vql=vql))

    assert data["rows"] == 3
