"""Export rows of a table, chosen by a query, to S3 as one CSV file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import uuid5

from pydantic import Field, model_validator

from app.dataplane.export import ExportStream, Snapshot, Written, begin_snapshot, copy_rows, ended_when
from app.dataplane.query import estimated_rows, export_statement
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.model import Query
from app.dataplane.vql.parser import parse
from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.errors import InvalidRequestError, JobError, Problem, TransientError
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.domain.places import relative_key
from app.domain.ports import ObjectRef, ObjectUpload
from app.domain.retry import RetryPolicy
from app.domain.tables import COMPANIES, Table
from app.persistence import artifacts, jobs
from app.services.reading import reader_of
from app.services.tables import Tables
from app.storage.scope import export_key, resolve
from tasks.context import RunContext
from tasks.export_report import ExportReport

_AT: Final = "/config/vql"
_SERVICES: Final = {"contact": "contacts", "company": "companies"}
_MANIFEST_SUFFIX: Final = ".manifest.json"


class ExportConfig(JobConfig):
    """What is exported, and how it is written."""

    service: Literal["contact", "company"] | None = Field(None, description="A built-in table; or name a table.")
    table: str | None = Field(None, description="A declared table.", max_length=63)
    vql: dict[str, Any] = Field(description="The query; its select_columns are the file's columns (docs/vql.md).")
    s3_bucket: str | None = Field(
        None, description="None takes the installation's own, as the job then shows.", max_length=255
    )
    compression: Literal["none", "gzip"] = "none"
    header: bool = Field(True, description="Whether the first line names the columns.")

    @model_validator(mode="after")
    def _names_one_table(self) -> ExportConfig:
        if (self.service is None) == (self.table is None):
            raise ValueError("give either service (contact, company) or table")
        return self

    @property
    def table_name(self) -> str:
        """The table that is exported."""
        return self.table if self.table is not None else _SERVICES[self.service or ""]

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".csv.gz" if self.compression == "gzip" else ".csv"

    @property
    def content_type(self) -> str:
        """Of the file."""
        return "application/gzip" if self.compression == "gzip" else "text/csv; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Finished:
    """An upload whose parts are all in S3: what the fenced checkpoint holds before they are joined."""

    upload_id: str
    parts: list[dict[str, object]]
    rows: int
    written: Written
    snapshot: Snapshot

    def as_json(self, ref: ObjectRef) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            **_started(ref, self.upload_id),
            "parts": self.parts,
            "rows": self.rows,
            "written": asdict(self.written),
            "snapshot": {"id": self.snapshot.id, "taken_at": self.snapshot.taken_at.isoformat()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Finished:
        """The inverse of ``as_json``."""
        snapshot = Snapshot(value["snapshot"]["id"], datetime.fromisoformat(value["snapshot"]["taken_at"]))
        return cls(value["upload_id"], value["parts"], value["rows"], Written(**value["written"]), snapshot)


def check(submission: Submission, config: ExportConfig) -> None:
    """Refuse a query that no run could use, and a bucket the tenant may not write to.

    Raises:
        InvalidRequestError: There is no such table, ``vql.select_columns_required`` or another fault of the query.
        ForbiddenError: The bucket is not open to the tenant.
    """
    submission.place(config.s3_bucket, "any")
    _query(config, submission.table(config.table_name, pointer="/config/table"))


def settle(submission: Submission, config: dict[str, Any]) -> dict[str, Any]:
    """The config with its bucket."""
    return {**config, "s3_bucket": config.get("s3_bucket") or submission.own_bucket}


def run(job: RunContext, config: ExportConfig) -> Result:
    """Write the file, or finish what an earlier run of the job has written."""
    tables = Tables(job.sessions)
    table = tables.get(job.job.tenant, config.table_name)
    query = _query(config, table)
    if query.uses_relation:
        # Built-in tables are made at their first use, which a filter on their columns is.
        tables.get(job.job.tenant, COMPANIES.name)
    ref = resolve(job.settings, job.job.tenant, config.s3_bucket, export_key(job.settings, job.id, config.suffix))
    finished = _completed_before(job) or _write(job, config, table, query, ref)
    manifest = _manifest(job, config, query, ref, finished)
    _record(job, config, ref, finished, manifest)
    return _result(job, query, ref, finished)


def _query(config: ExportConfig, table: Table) -> Query:
    if config.vql.get("select_columns") in (None, []):
        raise _columns_missing()
    query = parse(config.vql, Catalogue(table), pointer=_AT)
    problems = []
    if query.page is not None:
        problems.append(Problem(f"{_AT}/page", "an export has no pages; leave page out"))
    if query.populate is not None:
        problems.append(Problem(f"{_AT}/company_config", "a file holds the table's own columns; leave this out"))
    if problems:
        raise InvalidRequestError("the query is not one for exports", code="vql.invalid", problems=tuple(problems))
    return query


def _columns_missing() -> InvalidRequestError:
    return InvalidRequestError(
        "an export needs select_columns: the columns of the file, in order",
        code="vql.select_columns_required",
        hint="Add select_columns to vql with at least one column.",
        problems=(Problem(f"{_AT}/select_columns", "expected an array of at least one column"),),
    )


def _started(ref: ObjectRef, upload_id: str) -> dict[str, Any]:
    return {"bucket": ref.bucket, "key": ref.key, "upload_id": upload_id}


def _completed_before(job: RunContext) -> Finished | None:
    """What an earlier run of the job finished, joined now if it was not; ``None`` when there is nothing to keep."""
    checkpoint = job.job.checkpoint
    if not checkpoint:
        return None
    ref = ObjectRef(checkpoint["bucket"], checkpoint["key"])
    if "parts" not in checkpoint:
        job.objects.abort_upload(ref, checkpoint["upload_id"])
        return None
    finished = Finished.from_json(checkpoint)
    try:
        info = job.objects.complete_multipart(ref, finished.upload_id, finished.parts)
    except JobError as error:
        if error.code not in ("s3.no_such_upload", "s3.refused"):
            raise
        # Swept away, or its parts were: the file is written anew.
        job.objects.abort_upload(ref, finished.upload_id)
        return None
    return finished if info.size_bytes == finished.written.stored_bytes else None


def _write(job: RunContext, config: ExportConfig, table: Table, query: Query, ref: ObjectRef) -> Finished:
    filename = ref.key.rsplit("/", 1)[-1]
    upload = job.objects.start_upload(ref, content_type=config.content_type, filename=filename)
    kept = False
    try:
        # Before part 1, and fenced: the run that takes over aborts this upload, and ours can then join nothing.
        job.checkpoint(_started(ref, upload.upload_id))
        rows, written, snapshot = _stream(job, config, table, query, upload)
        finished = Finished(upload.upload_id, upload.finish_parts(), rows, written, snapshot)
        job.check()
        # Fenced again: only the parts of the run that holds the job are ever joined.
        job.checkpoint(finished.as_json(ref))
        # A later run can join these parts, so they outlive a failure from here on.
        kept = True
        upload.complete(finished.parts)
    finally:
        if not kept:
            upload.abort()
    return finished


def _stream(
    job: RunContext, config: ExportConfig, table: Table, query: Query, upload: ObjectUpload
) -> tuple[int, Written, Snapshot]:
    statement = export_statement(job.job.tenant, table, query)
    reader = reader_of(job.sessions, job.job.tenant)
    with job.sessions.begin() as session:
        snapshot = begin_snapshot(session, role=reader)
        report = ExportReport(job, estimated_rows(session, statement))
        header_lines = int(config.header)
        stream = ExportStream(
            upload,
            compression=config.compression,
            between=lambda: report(rows=stream.lines - header_lines, size_bytes=stream.plain_bytes),
        )
        try:
            with ended_when(session, lambda: report.must_end(size_bytes=stream.plain_bytes)):
                rows = copy_rows(session, statement, stream, header=config.header)
            written = stream.finish()
        except TransientError:
            # An end that was asked for is not a failure.
            job.check()
            raise
        finally:
            stream.stop()
    return rows, written, snapshot


def _manifest(job: RunContext, config: ExportConfig, query: Query, ref: ObjectRef, finished: Finished) -> bytes:
    """What the file is, so that it can be checked without us; the same bytes from every run that gets here."""
    return json.dumps(
        {
            "version": 1,
            "job_id": str(job.id),
            "table": config.table_name,
            "s3_bucket": ref.bucket,
            "s3_key": relative_key(job.job.tenant, ref),
            "columns": [one.name for one in query.select or ()],
            "rows": finished.rows,
            "header": config.header,
            "compression": config.compression,
            "bytes": finished.written.stored_bytes,
            "sha256": finished.written.stored_sha256,
            "csv_bytes": finished.written.plain_bytes,
            "csv_sha256": finished.written.plain_sha256,
            "parts": len(finished.parts),
            "query": config.vql,
            "consistent": True,
            "snapshot": {"id": finished.snapshot.id, "taken_at": finished.snapshot.taken_at.isoformat()},
        },
        indent=2,
    ).encode()


def _record(job: RunContext, config: ExportConfig, ref: ObjectRef, finished: Finished, manifest: bytes) -> None:
    """Store the manifest, then both artifacts under the job's fence."""
    manifest_ref = ObjectRef(ref.bucket, ref.key + _MANIFEST_SUFFIX)
    job.objects.put(
        manifest_ref, manifest, content_type="application/json", filename=manifest_ref.key.rsplit("/", 1)[-1]
    )
    expires_at = job.clock.now() + timedelta(seconds=job.settings.artifact_ttl_s)
    written = finished.written

    def artifact(kind: ArtifactKind, at: ObjectRef, content_type: str, size_bytes: int) -> Artifact:
        name = at.key.rsplit("/", 1)[-1]
        is_file = kind is ArtifactKind.EXPORT
        return Artifact(
            id=uuid5(job.id, kind),
            job_id=job.id,
            tenant=job.job.tenant,
            kind=kind,
            name=name,
            content_type=content_type,
            ref=at,
            size_bytes=size_bytes,
            sha256=written.stored_sha256 if is_file else None,
            rows=finished.rows if is_file else None,
            expires_at=expires_at,
        )

    with job.sessions.begin() as session:
        artifacts.put(
            session,
            job.job.tenant,
            artifact(ArtifactKind.EXPORT, ref, config.content_type, written.stored_bytes),
        )
        artifacts.put(
            session,
            job.job.tenant,
            artifact(ArtifactKind.MANIFEST, manifest_ref, "application/json", len(manifest)),
        )
        jobs.advance(
            session,
            job.job,
            rows_done=finished.rows,
            rows_total=finished.rows,
            bytes_done=written.plain_bytes,
            bytes_total=written.plain_bytes,
            stage="exported",
        )


def _result(job: RunContext, query: Query, ref: ObjectRef, finished: Finished) -> Result:
    rows = finished.rows
    return Result(
        {
            "s3_bucket": ref.bucket,
            "s3_key": relative_key(job.job.tenant, ref),
            "rows": rows,
            "bytes": finished.written.stored_bytes,
            "sha256": finished.written.stored_sha256,
            "csv_bytes": finished.written.plain_bytes,
            "csv_sha256": finished.written.plain_sha256,
            "columns": [one.name for one in query.select or ()],
            "consistent": True,
            "snapshot": finished.snapshot.taken_at.isoformat(),
        },
        message=f"exported {rows} row{'' if rows == 1 else 's'} to {relative_key(job.job.tenant, ref)}",
        outcome=Outcome.SUCCESS if rows else Outcome.EMPTY,
    )


JOB_TYPE: Final = JobType(
    name="export_csv_file",
    config=ExportConfig,
    run=run,
    check=check,
    settle=settle,
    retry=RetryPolicy(maximum_attempts=5, initial_interval_s=2.0),
    summary="Write the rows that a query finds to S3 as one CSV file.",
)
