"""``insert_csv_file``: a CSV object of S3 into a declared table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, Field, field_validator

from app.dataplane.budget import OnBudget
from app.dataplane.companions import Companions, check_companions
from app.dataplane.importer import import_file
from app.dataplane.origins import S3Origin
from app.dataplane.plan import Mode, Options
from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.tables import Table
from app.services.tables import Tables
from app.storage.scope import resolve

if TYPE_CHECKING:
    from tasks.context import RunContext


class InsertCsvFile(JobConfig):
    """What to import, and how the file is to be read."""

    s3_key: str = Field(min_length=1, max_length=1024, description="The object, relative to the tenant's place in S3.")
    s3_bucket: str | None = Field(None, description="Another bucket than the installation's, if that is allowed.")
    table: str = Field("contacts", description="The declared table the rows go to.")
    key: list[str] | None = Field(
        None, description="The table's key columns, for a reader's sake; no others are taken."
    )
    mapping: dict[str, str] = Field(default_factory=dict, description="Header name to column, where they differ.")
    mode: Literal["upsert", "insert", "update"] = Field(
        "upsert", description="insert leaves rows alone that are there, update those that are not."
    )
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    compression: Literal["auto", "none", "gzip"] = Field("auto", description="auto looks at the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1)
    batch_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        validation_alias=AliasChoices("batch_size", "batch_rows"),
        description="Records per batch; batch_rows is the same.",
    )
    lanes: int | None = Field(
        None,
        ge=1,
        le=8,
        validation_alias=AliasChoices("parallel_batches", "lanes"),
        description="Connections that write side by side, at most so many batches at once; lanes is the same.",
    )
    batch_timeout_s: float | None = Field(
        None,
        ge=0.1,
        le=3600,
        description="A batch that takes longer is taken back and tried again; after six times the attempt has failed.",
    )
    ignore_unknown: bool = Field(False, description="Leave out fields whose header is no column.")
    companions: bool = Field(
        False, description="Take company_* columns of contacts too: they become the contact's company."
    )
    max_errors: int | None = Field(None, ge=0, description="Stop when more records than this are refused.")
    max_error_rate: float | None = Field(None, ge=0, le=1, description="Stop when a larger part is refused.")
    on_budget: Literal["pause", "fail"] = Field(
        "pause", description="What becomes of a job that stops so: it waits to be resumed, or fails."
    )

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if not value.isascii() or value in '"\r\n\0' or value.isalnum():
            raise ValueError("a delimiter is one ASCII character, not a letter, digit, quote or line end")
        return value

    def options(self) -> Options:
        """The config as the data plane takes it."""
        return Options(
            mapping=self.mapping,
            encoding=self.encoding,
            compression=self.compression,
            delimiter=self.delimiter,
            mode=Mode(self.mode),
            batch_rows=self.batch_rows,
            lanes=self.lanes,
            batch_timeout_s=self.batch_timeout_s,
            ignore_unknown=self.ignore_unknown,
            companions=self.companions,
            max_errors=self.max_errors,
            max_error_rate=self.max_error_rate,
            on_budget=OnBudget(self.on_budget),
        )


def check(submission: Submission, config: InsertCsvFile) -> None:
    """Refuse a place the tenant may not read and a table or key that is not there.

    Raises:
        InvalidRequestError: There is no such table, it has another key, or nothing comes beside its rows.
        ForbiddenError: The bucket or prefix is not the tenant's.
    """
    submission.place(config.s3_bucket, config.s3_key)
    table = submission.table(config.table, pointer="/config/table")
    _check_key(table, config.key)
    if config.companions:
        _companions(table, config)


def run(job: RunContext, config: InsertCsvFile) -> Result:
    """Import the file."""
    ref = resolve(job.settings, job.job.tenant, config.s3_bucket, config.s3_key)
    tables = Tables(job.sessions)
    table = tables.get(job.job.tenant, config.table)
    _check_key(table, config.key)
    if config.companions:
        tables.get(job.job.tenant, _companions(table, config).table.name)  # makes it, at its first use
    return import_file(job, S3Origin(job.objects, ref), table, config.options())


def _companions(table: Table, config: InsertCsvFile) -> Companions:
    return check_companions(table, upserts=config.mode == "upsert", pointer="/config/companions")


def _check_key(table: Table, key: list[str] | None) -> None:
    if key is not None and tuple(key) != table.key:
        raise InvalidRequestError(
            f"table {table.name!r} has the key {', '.join(table.key)}, got {', '.join(key)}",
            code="import.key_unsupported",
            hint="Leave key out, or declare a table with that key.",
            problems=(Problem("/config/key", f"expected {list(table.key)}, got {key}"),),
        )


JOB_TYPE = JobType(
    name="insert_csv_file",
    config=InsertCsvFile,
    run=run,
    check=check,
    summary="Import a CSV file from S3 into a table: checked, upserted by key, every refused row kept.",
)
