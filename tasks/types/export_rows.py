"""Export rows of a table to files of any common format, in parts if wanted, with a signed manifest."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from app.dataplane import parquet
from app.dataplane.compressors import Compression
from app.dataplane.encrypted_lines import LineKey
from app.dataplane.export_columns import Selection, columns_of
from app.dataplane.export_formats import PACKED, FileFormat, suffix_of
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.model import Query
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.key_templates import filled
from app.domain.manifests import SEALED_SUFFIX
from app.domain.retry import RetryPolicy
from app.domain.sinks import WebhookSink
from app.domain.tables import COMPANIES, Table
from app.security.master_keys import MasterKeys
from app.services.line_keys import LineKeys
from app.services.tables import Tables
from tasks.context import RunContext
from tasks.export_delivery import Delivery, check_provider
from tasks.export_run import Export, Shape

MAX_PARALLEL: Final = 4
_AT: Final = "/config/vql"
_SINK_AT: Final = "/config/destination/sink"
_WORDS: Final = ("date", "type", "job_id", "table")
_FOLDER: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"


class Destination(BaseModel):
    """Where the files go: one of these. Those of a provider are brought there, and are artifacts too."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folder: str | None = Field(
        None, description="Below HAULIER_EXPORT_ROOT, in the tenant's own folder.", pattern=f"^{_FOLDER}$"
    )
    sink: str | None = Field(None, description="A bucket of the tenant's own (PUT /v1/sinks/{name}).", max_length=63)

    provider: str | None = Field(
        None, description="A sink of another package: its entry point in the group haulier.sinks.", max_length=255
    )
    config: dict[str, Any] = Field(default_factory=dict, description="The provider's own.")

    @model_validator(mode="after")
    def _is_one(self) -> Destination:
        if [self.folder, self.sink, self.provider].count(None) != 2:
            raise ValueError("give either folder, sink or provider")
        if self.config and self.provider is None:
            raise ValueError("config is a provider's")
        return self

    @property
    def delivery(self) -> Delivery | None:
        """Whom the files are brought to; PermanentError when that cannot be."""
        return None if self.provider is None else Delivery.of(self.provider, self.config)


class LineEncryption(BaseModel):
    """Each line as `{"encrypted_data": "key:iv:ciphertext"}`, for readers that share the key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    key: str = Field(description="Name of a key of POST /v1/line-keys.", max_length=63)
    customer_id: str = Field(description="Authenticated with each line.", min_length=1, max_length=200)


class ExportRowsConfig(JobConfig):
    """What is exported, how it is written and where it goes."""

    table: str = Field(description="A declared or built-in table.", max_length=63)
    vql: dict[str, Any] = Field({}, description="The query (docs/vql.md); without select_columns all columns.")
    format: FileFormat = "csv"
    compression: Compression = "none"
    header: bool = Field(True, description="For csv and xlsx: whether the first row names the columns.")
    include_key: bool = Field(
        False,
        description="Add the key's columns in front when the query does not select them.",
        validation_alias=AliasChoices("include_key", "include_uuid"),
    )
    include_metadata: bool = Field(False, description="Add when a row came, when it last changed, and by which job.")
    filter_invalid: bool = Field(False, description="Leave out rows that break the table's declaration; count them.")
    spreadsheet_safe: bool = Field(
        False, description="For csv: put ' before texts that a spreadsheet would take for a formula."
    )
    key: str | None = Field(
        None, description="Name of the file with {date} {type} {job_id} {table}; its suffix is added.", max_length=500
    )
    if_exists: Literal["refuse", "number"] = Field("refuse", description="When there is a file of this name.")
    max_rows_per_part: int | None = Field(None, ge=1)
    max_bytes_per_part: int | None = Field(None, ge=1024, description="Before compression.")
    encrypted: bool = Field(
        False, description="Store the files as AES-256-GCM; their links lead to us, who decrypt them."
    )
    encrypt_lines: LineEncryption | None = Field(None, description="For ndjson: encrypt every line by itself.")
    parallel: int = Field(1, ge=1, le=MAX_PARALLEL, description="Parts that are written side by side.")
    s3_bucket: str | None = Field(
        None, description="None takes the installation's own, as the job then shows.", max_length=255
    )
    destination: Destination | None = Field(None, description="None: artifacts, to be downloaded.")

    @property
    def in_parts(self) -> bool:
        """Whether the export may have several files."""
        return self.max_rows_per_part is not None or self.max_bytes_per_part is not None

    @model_validator(mode="after")
    def _fits_together(self) -> ExportRowsConfig:
        if self.format in PACKED and self.compression != "none":
            raise ValueError(f"{self.format} is compressed in itself: compression is none, got {self.compression!r}")
        if self.spreadsheet_safe and self.format != "csv":
            raise ValueError(f"spreadsheet_safe is for csv; no text of {self.format} is taken for a formula")
        if self.format in PACKED and self.max_bytes_per_part is not None:
            raise ValueError(f"parts of {self.format} are counted in rows: use max_rows_per_part")
        if self.encrypt_lines is not None and (self.format != "ndjson" or self.in_parts):
            raise ValueError("encrypt_lines is for ndjson in one file: a line is bound to its place there")
        if self.parallel > 1 and not self.in_parts:
            raise ValueError("parallel needs parts: give max_rows_per_part or max_bytes_per_part")
        if self.destination is not None and self.s3_bucket is not None:
            raise ValueError("give either destination or s3_bucket")
        return self


def check(submission: Submission, config: ExportRowsConfig) -> None:
    """Refuse what no run could write.

    Raises:
        InvalidRequestError: There is no such table, a fault of the query, of the key or of the destination.
        ForbiddenError: The bucket is not open to the tenant, or the key leaves its place.
    """
    if config.format == "parquet" and not parquet.is_there():
        raise _invalid("/config/format", "this installation writes no Parquet: install haulier[parquet]")
    if config.encrypted and not submission.may_encrypt:
        raise _invalid("/config/encrypted", "this installation has no HAULIER_MASTER_KEY to encrypt with")
    if config.encrypt_lines is not None:
        submission.check_line_key(config.encrypt_lines.key, pointer="/config/encrypt_lines/key")
    probe = _probe(config)
    if config.destination is None:
        submission.place(config.s3_bucket, probe)
    elif config.destination.sink is not None:
        submission.place(None, probe)
        if isinstance(submission.sink(config.destination.sink, pointer=_SINK_AT), WebhookSink):
            raise _invalid(_SINK_AT, "expected a bucket; this sink is a receiver of results and takes no files")
    elif config.destination.provider is not None:
        submission.place(None, probe)
        check_provider(config.destination.provider, config.destination.config, at="/config/destination")
    elif not submission.may_write_folders:
        raise _invalid("/config/destination/folder", "this installation has no HAULIER_EXPORT_ROOT to write below")
    _query(config, submission.table(config.table, pointer="/config/table"))


def settle(submission: Submission, config: dict[str, Any]) -> dict[str, Any]:
    """The config with its bucket, if the files go to one of ours."""
    if config.get("destination") is not None:
        return config
    return {**config, "s3_bucket": config.get("s3_bucket") or submission.own_bucket}


def _probe(config: ExportRowsConfig) -> str:
    if config.key is None:
        return "any"
    try:
        return filled(config.key, dict.fromkeys(_WORDS, "x"))
    except ValueError as error:
        raise _invalid("/config/key", str(error)) from None


def _query(config: ExportRowsConfig, table: Table) -> Query:
    query = parse(config.vql, Catalogue(table), pointer=_AT)
    unfit = [
        (query.page is not None, "page", "an export has no pages; leave page out"),
        (query.populate is not None, "company_config", "a file holds the table's own columns; leave this out"),
        (config.in_parts and bool(query.order), "order_by", "parts are in the key's order; leave order_by out"),
        (config.in_parts and query.limit is not None, "limit", "an export in parts has no limit; leave limit out"),
        (config.in_parts and query.after is not None, "search_after", "parts begin at the first key; leave this out"),
    ]
    problems = tuple(Problem(f"{_AT}/{name}", detail) for wrong, name, detail in unfit if wrong)
    if problems:
        raise InvalidRequestError("the query is not one for exports", code="vql.invalid", problems=problems)
    return query


def _invalid(pointer: str, detail: str) -> InvalidRequestError:
    return InvalidRequestError(
        "the config does not fit job type 'export'", code="job.config_invalid", problems=(Problem(pointer, detail),)
    )


def run(job: RunContext, config: ExportRowsConfig) -> Result:
    """Write the files, or what is left of them, and their manifest."""
    tables = Tables(job.sessions)
    table = tables.get(job.job.tenant, config.table)
    query = _query(config, table)
    if query.uses_relation:
        # Built-in tables are made at their first use, which a filter on their columns is.
        tables.get(job.job.tenant, COMPANIES.name)
    columns = columns_of(table, query, with_key=config.include_key, with_metadata=config.include_metadata)
    selection = Selection(job.job.tenant, table, columns, query, config.filter_invalid, config.spreadsheet_safe)
    shape = Shape(
        file_format=config.format,
        compression=config.compression,
        header=config.header,
        in_parts=config.in_parts,
        max_rows=config.max_rows_per_part,
        max_bytes=config.max_bytes_per_part,
        parallel=config.parallel,
        stem=_stem(job, config),
        suffix=suffix_of(config.format, config.compression) + (SEALED_SUFFIX if config.encrypted else ""),
        numbered=config.if_exists == "number",
        bucket=config.s3_bucket,
        folder=None if config.destination is None else config.destination.folder,
        sink=None if config.destination is None else config.destination.sink,
        line_key=_line_key(job, config),
        encrypted=config.encrypted,
        delivery=None if config.destination is None else config.destination.delivery,
    )
    return Export(job, selection, shape, vql=config.vql, asked=_asked(config)).run()


def _asked(config: ExportRowsConfig) -> str:
    """A hash of the config, but for how many files are written side by side, which may change on the way."""
    said = config.model_dump(mode="json", exclude={"parallel"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _line_key(job: RunContext, config: ExportRowsConfig) -> LineKey | None:
    asked = config.encrypt_lines
    if asked is None:
        return None
    keys = LineKeys(job.sessions, MasterKeys(job.settings.master_keys))
    return keys.open(job.job.tenant, asked.key, customer_id=asked.customer_id)


def _stem(job: RunContext, config: ExportRowsConfig) -> str | None:
    """The key without its suffix; ``None`` when none is asked for."""
    if config.key is None:
        return None
    words = {
        "date": job.job.created_at.date().isoformat(),
        "type": JOB_TYPE.name,
        "job_id": str(job.id),
        "table": config.table,
    }
    return filled(config.key, words).removesuffix(suffix_of(config.format, config.compression))


JOB_TYPE: Final = JobType(
    name="export",
    config=ExportRowsConfig,
    run=run,
    check=check,
    settle=settle,
    retry=RetryPolicy(maximum_attempts=5, initial_interval_s=2.0),
    summary="Write rows of a table as csv, ndjson, json, xlsx or parquet, with a signed manifest.",
)
