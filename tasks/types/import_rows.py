"""``import``: rows of a file, from wherever it lies and in whichever common format, into a declared table."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from app.dataplane import reading
from app.dataplane.arranging import problems_of
from app.dataplane.auto_map import AutoMap
from app.dataplane.budget import OnInvalid
from app.dataplane.dry_run import DryRun
from app.dataplane.enriching import Enrich
from app.dataplane.importer import import_file
from app.dataplane.origins import Origin, origin_at
from app.dataplane.plan import Options
from app.dataplane.rules import Rule
from app.dataplane.shaping import Shaping
from app.dataplane.spooling import UrlOrigin
from app.dataplane.transforms import Transform
from app.domain.errors import InvalidRequestError, JobError, Problem
from app.domain.job_types import FilePlace, JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.domain.ports import ObjectRef
from app.domain.tables import Table
from app.persistence import imports
from app.security.outgoing.targets import parse_target
from tasks.loading import LoadConfig, check_amended, check_target, target

if TYPE_CHECKING:
    from tasks.context import RunContext

_PAST: Final = timedelta(days=30)
_MOST_INLINE_CHARACTERS: Final = 8 * 2**20
_FormatName = Literal["csv", "ndjson", "json", "xlsx"]


class S3Source(JobConfig):
    """An object."""

    key: str = Field(min_length=1, max_length=1024, description="Relative to the tenant's place in S3.")
    bucket: str | None = Field(None, description="Left out: S3_BUCKET, as the job then shows. Others must be allowed.")


class Source(JobConfig):
    """Where the file lies: exactly one of these."""

    s3: S3Source | None = None
    upload: str | None = Field(None, min_length=1, max_length=1024, description="Id or key, as the upload answered.")
    path: str | None = Field(None, min_length=1, max_length=4096, description="Below HAULIER_IMPORT_ROOT.")
    url: str | None = Field(None, description="http or https, a public address.")
    text: str | None = Field(None, max_length=_MOST_INLINE_CHARACTERS, description="The file itself, if it is small.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = sorted(self.model_fields_set)
        if len(given) != 1 or getattr(self, given[0]) is None:
            raise ValueError(
                f"expected exactly one of s3, upload, path, url and text, got {', '.join(given) or 'none'}"
            )
        return self


class Import(LoadConfig):
    """What to import, and how the file is to be read."""

    DECISIVE: ClassVar[tuple[str, ...]] = (
        *LoadConfig.DECISIVE,
        *("source", "format", "header", "skip_rows", "sheet", "merged_cells", "validate_only"),
    )

    source: Source
    workbook: str | None = Field(
        None,
        description="Of an XLSX file, instead of table: each sheet goes to the table that the workbook has for it. By "
        "POST /v1/jobs alone, which makes it a batch of imports.",
    )
    format: Literal["auto"] | _FormatName = Field("auto", description="auto looks at the content.")
    compression: Literal["auto", "none", "gzip", "zstd", "zip"] = Field(
        "auto", description="auto looks at the file's first bytes; a zip file holds one file."
    )
    encoding: Literal["auto", "utf-8", "latin-1", "utf-16"] = Field("utf-8", description="Of CSV; JSON is UTF-8.")
    delimiter: str = Field("auto", description="Of CSV: one ASCII character, or auto.")
    header: bool | list[str] = Field(
        True,
        description="Whether the first record names the fields; false: they are the table's columns in order, or with "
        "a mapping column_1, column_2 and so on. A list names them; of JSON, the keys that are taken.",
    )
    skip_rows: int = Field(0, ge=0, le=1_000_000, description="Lines of CSV, rows of a sheet before the header.")
    null_tokens: list[str] = Field(default_factory=list, max_length=100, description="Values that stand for NULL.")
    empty_as: Literal["null", "text"] = Field(
        "null",
        description="Empty text in a text column; text keeps it apart from NULL, which is then what null_tokens say "
        "and null in JSON.",
    )
    on_invalid: Literal["quarantine", "skip", "fail"] = Field(
        "quarantine", description="A row that is refused: is kept in the ledger, is left out, or fails the job."
    )
    sheet: str | int = Field(1, description="Of a workbook: the name of a sheet, or its number, counted from 1.")
    merged_cells: Literal["first", "fill"] = Field(
        "first", description="Of a workbook: the value of merged cells stands in the first of them, or in all."
    )
    scan_for_viruses: bool = Field(False, description="By the clamd of HAULIER_CLAMD, before anything is read.")
    auto_map: AutoMap | None = Field(
        None, description="Headers that are no column's name find the column that they are most like."
    )
    transforms: list[Transform] = Field(
        default_factory=list, max_length=500, description="Changes to values before all else, in this order."
    )
    enrich: list[Enrich] = Field(default_factory=list, max_length=20, description="Columns that a service fills.")
    rules: list[Rule] = Field(
        default_factory=list, max_length=500, description="What rows have to keep beyond the types of the columns."
    )
    validate_only: bool = Field(
        False, description="Read, map and check the file, and report: no row is written, and no ledger."
    )
    validate_rows: int | None = Field(
        100_000, ge=1, description="Records that such a look reads, at least; null reads the whole file."
    )
    max_file_size: int | None = Field(None, ge=1, description="Bytes as stored; a larger file is not read.")
    allowed_formats: list[_FormatName] | None = Field(None, min_length=1, description="Others are refused, by content.")

    @field_validator("sheet")
    @classmethod
    def _is_a_sheet(cls, value: str | int) -> str | int:
        if value == "" or (isinstance(value, int) and value < 1):
            raise ValueError("expected the name of a sheet, or its number from 1 on")
        return value

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if value != "auto" and (len(value) != 1 or not value.isascii() or value in '"\r\n\0' or value.isalnum()):
            raise ValueError("expected auto or one ASCII character, not a letter, digit, quote or line end")
        return value

    @model_validator(mode="after")
    def _keeps_empty_of_one(self) -> Self:
        if self.empty_as == "text" and self.companions:
            raise ValueError("empty_as text is not taken together with companions")
        return self

    @field_validator("header")
    @classmethod
    def _has_names(cls, value: bool | list[str]) -> bool | list[str]:
        if value == []:
            raise ValueError("expected at least one name")
        return value

    @property
    def shaping(self) -> Shaping:
        """What is done to the records."""
        return Shaping(self.transforms, self.enrich, self.rules)

    def options(self) -> Options:
        """The config as the data plane takes it."""
        return self.load_options(
            encoding=self.encoding,
            compression=self.compression,
            delimiter=self.delimiter,
            file_format=self.format,
            header=tuple(self.header) if isinstance(self.header, list) else self.header,
            skip_rows=self.skip_rows,
            null_tokens=tuple(self.null_tokens),
            sheet=self.sheet,
            fill_merged=self.merged_cells == "fill",
            scan=self.scan_for_viruses,
            keeps_empty=self.empty_as == "text",
            on_invalid=OnInvalid(self.on_invalid),
            max_file_bytes=self.max_file_size,
            allowed_formats=None if self.allowed_formats is None else tuple(self.allowed_formats),
            tells_file=True,
            auto_map=self.auto_map,
            shaping=self.shaping,
        )


def check(submission: Submission, config: Import) -> None:
    """Refuse a source the tenant may not read, a table that is not there and what cannot be done to its rows.

    Raises:
        InvalidRequestError: With a pointer.
        ForbiddenError: The bucket or prefix is not the tenant's.
    """
    if config.workbook is not None:
        detail = "expected table: only POST /v1/jobs takes a workbook, and makes a batch of imports of it"
        raise InvalidRequestError(detail, code="job.config_invalid", problems=(Problem("/config/workbook", detail),))
    ref = _check_source(submission, config.source)
    if config.validate_only and ref is not None:
        submission.stored(ref, pointer="/config/source")
    if config.scan_for_viruses and not submission.may_scan:
        detail = "no scanner is configured (HAULIER_CLAMD), so no file can be scanned"
        raise InvalidRequestError(
            detail, code="source.scanner_missing", problems=(Problem("/config/scan_for_viruses", detail),)
        )
    table = check_target(submission, config)
    problems = problems_of(config.shaping, table, companions=config.companions)
    if problems:
        raise InvalidRequestError(
            f"the transforms, services or rules do not fit table {table.name!r}",
            code="job.config_invalid",
            problems=tuple(problems),
        )


def _check_source(submission: Submission, source: Source) -> ObjectRef | None:
    """The object that is the source; ``None`` when it is something else."""
    if source.s3 is not None:
        return submission.place(source.s3.bucket, source.s3.key)
    if source.upload is not None:
        return _uploaded(submission, source.upload)
    if source.path is not None:
        submission.path(source.path, pointer="/config/source/path")
    elif source.url is not None:
        try:
            parse_target(source.url)
        except JobError as error:
            problem = Problem("/config/source/url", error.detail)
            raise InvalidRequestError(error.detail, code=error.code, problems=(problem,)) from None
    return None


def _uploaded(submission: Submission, upload: str) -> ObjectRef:
    try:
        upload_id = UUID(upload)
    except ValueError:
        return submission.place(None, upload)
    return submission.upload(upload_id, pointer="/config/source/upload")


def settle(submission: Submission, config: dict[str, Any]) -> dict[str, Any]:
    """The config with the bucket of its object."""
    source = config["source"]
    place = source.get("s3") if isinstance(source, dict) else None
    if not isinstance(place, dict):
        return config
    return {**config, "source": {"s3": {**place, "bucket": place.get("bucket") or submission.own_bucket}}}


def run(job: RunContext, config: Import) -> Result:
    """Import the file, or look at it alone."""
    if config.validate_only:
        return _dry_run(job, config)
    return import_file(job, origin_of(job, config), target(job, config), config.options())


def _dry_run(job: RunContext, config: Import) -> Result:
    if "import" in (job.job.checkpoint or {}):
        raise JobError("the job has written rows, and now is to write none", code="import.config_changed")
    table = check_target(job.submission(job.job.tenant), config)  # unlike target() it makes none
    origin, options = origin_of(job, config), config.options()
    with reading.at_any_place(job, origin, options) as readable:
        report = DryRun(
            readable,
            table,
            options,
            job.settings,
            most_rows=config.validate_rows,
            rows_per_s=_past_rows_per_s(job, table),
            go_on=job.tell,
        ).report()
    said = f"{report['records']['rejected']} of {report['records']['read']} records would be refused"
    reason = report["problems"][0]["message"] if report["problems"] else said
    outcome = Outcome.SUCCESS if report["passed"] else Outcome.PARTIAL
    return Result(report, message=f"validated alone, nothing is written: {reason}", outcome=outcome)


def _past_rows_per_s(job: RunContext, table: Table) -> float | None:
    since = job.clock.now() - _PAST
    with job.sessions.begin() as session:
        uses = imports.use_of_sizes(session, job.job.tenant, table.name, since=since)
    return max((use.rows_per_s for use in uses), default=None)


def origin_of(job: RunContext, config: Import) -> Origin | UrlOrigin:
    """Where the file of a job of the same tenant lies."""
    submission = job.submission(job.job.tenant)
    place = place_of(submission, config)
    if place is None:
        return UrlOrigin(config.source.url or "")
    return origin_at(place, objects=job.objects, received=submission.received, import_root=job.settings.import_root)


def place_of(submission: Submission, config: Import) -> FilePlace | None:
    """Where the file lies; ``None`` for a URL, of which jobs make a copy."""
    source = config.source
    if source.s3 is not None:
        return submission.place(source.s3.bucket, source.s3.key)
    if source.upload is not None:
        return _uploaded(submission, source.upload)
    if source.path is not None:
        return submission.path(source.path, pointer="/config/source/path")
    return None if source.url is not None else (source.text or "").encode()


JOB_TYPE = JobType(
    name="import",
    config=Import,
    run=run,
    check=check,
    settle=settle,
    amended=check_amended,
    source=place_of,
    summary="Import CSV, NDJSON, JSON or XLSX from S3, an upload, a path, a URL or text; every refused row kept.",
)
