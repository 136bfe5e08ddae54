"""``insert_csv_file``: a CSV object of S3 into a declared table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from app.dataplane.importer import import_file
from app.dataplane.origins import S3Origin
from app.dataplane.plan import Options
from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobType, Result, Submission
from app.domain.ports import ObjectRef
from app.domain.tables import Table
from tasks.loading import LoadConfig, check_amended, check_target, target

if TYPE_CHECKING:
    from tasks.context import RunContext


class InsertCsvFile(LoadConfig):
    """What to import, and how the file is to be read."""

    DECISIVE: ClassVar[tuple[str, ...]] = (*LoadConfig.DECISIVE, "s3_key", "s3_bucket")

    s3_key: str = Field(min_length=1, max_length=1024, description="The object, relative to the tenant's place in S3.")
    s3_bucket: str | None = Field(
        None, description="Left out: S3_BUCKET, as the job then shows. Others must be allowed."
    )
    key: list[str] | None = Field(
        None, description="The table's key columns, for a reader's sake; no others are taken."
    )
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    compression: Literal["auto", "none", "gzip"] = Field("auto", description="auto looks at the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1)

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if not value.isascii() or value in '"\r\n\0' or value.isalnum():
            raise ValueError("a delimiter is one ASCII character, not a letter, digit, quote or line end")
        return value

    def options(self) -> Options:
        """The config as the data plane takes it."""
        return self.load_options(encoding=self.encoding, compression=self.compression, delimiter=self.delimiter)


def check(submission: Submission, config: InsertCsvFile) -> None:
    """Refuse a place the tenant may not read and a table or key that is not there.

    Raises:
        InvalidRequestError: There is no such table, it has another key, or nothing comes beside its rows.
        ForbiddenError: The bucket or prefix is not the tenant's.
    """
    place_of(submission, config)
    _check_key(check_target(submission, config), config.key)


def settle(submission: Submission, config: dict[str, Any]) -> dict[str, Any]:
    """The config with its bucket."""
    return {**config, "s3_bucket": config.get("s3_bucket") or submission.own_bucket}


def run(job: RunContext, config: InsertCsvFile) -> Result:
    """Import the file."""
    table = target(job, config)
    _check_key(table, config.key)
    return import_file(job, origin_of(job, config), table, config.options())


def origin_of(job: RunContext, config: InsertCsvFile) -> S3Origin:
    """Where the file of a job of the same tenant lies."""
    submission = job.submission(job.job.tenant)
    return S3Origin(job.objects, place_of(submission, config), submission.received)


def place_of(submission: Submission, config: InsertCsvFile) -> ObjectRef:
    """The object."""
    return submission.place(config.s3_bucket, config.s3_key)


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
    settle=settle,
    amended=check_amended,
    source=place_of,
    summary="Import a CSV file from S3 into a table: checked, upserted by key, every refused row kept.",
)
