"""What every job type that loads rows into a declared table takes, checks and does alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import AliasChoices, Field

from app.dataplane.budget import OnBudget
from app.dataplane.companions import Companions, check_companions
from app.dataplane.mapping import Columns
from app.dataplane.plan import Mode, Options
from app.domain.errors import ConflictError, InvalidRequestError, Problem, segment
from app.domain.job_types import JobConfig, Submission
from app.domain.tables import Table
from app.services.mirrors import Mirrors
from app.services.tables import Tables

if TYPE_CHECKING:
    from tasks.context import RunContext


class LoadConfig(JobConfig):
    """Where the rows go, how, and how many may be refused."""

    DECISIVE: ClassVar[tuple[str, ...]] = ("table", "encoding", "compression", "delimiter", "revertible")
    """What decides which records there are, and what an import is all through or not at all."""

    table: str = Field("contacts", description="The declared table the rows go to.")
    mapping: dict[str, str] = Field(default_factory=dict, description="Header name or key to column.")
    mode: Literal["upsert", "insert", "update"] = Field(
        "upsert", description="insert leaves rows alone that are there, update those that are not."
    )
    batch_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        validation_alias=AliasChoices("batch_size", "batch_rows"),
        description="Records per batch, at most; one that is 32 MB long ends early. batch_rows is the same.",
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
    ignore_unknown: bool = Field(False, description="Leave out fields that are no column.")
    companions: bool = Field(
        False, description="Take company_* columns of contacts too: they become the contact's company."
    )
    max_errors: int | None = Field(None, ge=0, description="Stop when more records than this are refused.")
    max_error_rate: float | None = Field(None, ge=0, le=1, description="Stop when a larger part is refused.")
    on_budget: Literal["pause", "fail"] = Field(
        "pause", description="What becomes of a job that stops so: it waits to be resumed, or fails."
    )

    revertible: bool = Field(
        False, description="Keep what rows were before, so that the job can be reverted until it is past its time."
    )

    def load_options(self, **reading: Any) -> Options:
        """The config as the data plane takes it; ``reading`` says how the file is read."""
        return Options(
            mapping=self.mapping,
            mode=Mode(self.mode),
            batch_rows=self.batch_rows,
            lanes=self.lanes,
            batch_timeout_s=self.batch_timeout_s,
            ignore_unknown=self.ignore_unknown,
            companions=self.companions,
            max_errors=self.max_errors,
            max_error_rate=self.max_error_rate,
            on_budget=OnBudget(self.on_budget),
            revertible=self.revertible,
            **reading,
        )


def check_amended(was: LoadConfig, will: LoadConfig, checkpoint: Mapping[str, Any]) -> None:
    """Refuse another config for an import that has begun, unless it reads the same records.

    Raises:
        ConflictError: ``import.config_changed``.
    """
    changed = [name for name in was.DECISIVE if getattr(was, name) != getattr(will, name)]
    if changed and "import" in checkpoint:
        raise ConflictError(
            f"the import has begun to load the file, and cannot go on with another {', '.join(changed)}",
            code="import.config_changed",
            data={"changed": changed},
        )


def check_target(submission: Submission, config: LoadConfig) -> Table:
    """The table the rows are to go to.

    Raises:
        InvalidRequestError: There is no such table, nothing comes beside its rows, or a mapping leads nowhere.
    """
    table = submission.table(config.table, pointer="/config/table")
    columns = Columns(table, _companions(table, config) if config.companions else None)
    problems = tuple(
        Problem(
            "/config/mapping/" + segment(header),
            f"{column!r} is no column of {table.name!r}. {columns.nearest(column)}".strip(),
        )
        for header, column in config.mapping.items()
        if column not in columns.names
    )
    if problems:
        raise InvalidRequestError(
            f"the mapping does not fit table {table.name!r}", code="job.config_invalid", problems=problems
        )
    return table


def target(job: RunContext, config: LoadConfig) -> Table:
    """The table the rows go to, made with its companion at the first use; errors as ``check_target``.

    That the job writes there is noted, for the values that pickers offer, and for the search mirror.
    """
    tables, tenant = Tables(job.sessions), job.job.tenant
    mirrors = Mirrors(job.sessions, job.settings)
    table = tables.get(tenant, config.table)
    tables.will_write(tenant, table, job.id)
    mirrors.begin(tenant, table)
    if config.companions:
        beside = tables.get(tenant, _companions(table, config).table.name)
        tables.will_write(tenant, beside, job.id)
        mirrors.begin(tenant, beside)
    return table


def _companions(table: Table, config: LoadConfig) -> Companions:
    return check_companions(table, upserts=config.mode == "upsert", pointer="/config/companions")
