"""``delete_records_before``: rows of a table that are older than an instant, or that a query means."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import AwareDatetime, Field, model_validator

from app.dataplane.deleting import delete
from app.dataplane.tables import quoted
from app.dataplane.vql.compiler import Statement
from app.dataplane.walking import Walk
from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.domain.tables import ColumnType, Table
from app.services.tables import Tables
from tasks.walks import ONLY, conditions, make_related

if TYPE_CHECKING:
    from tasks.context import RunContext

_WRITTEN: Final = ("haulier_created_at", "haulier_updated_at")
_TIMES: Final = frozenset({ColumnType.DATE, ColumnType.TIMESTAMPTZ})


class DeleteRecordsBefore(JobConfig):
    """Which rows."""

    table: str = Field(description="A declared table.")
    before: AwareDatetime | None = Field(None, strict=False, description="Rows whose column is earlier go.")
    column: str = Field(
        "haulier_created_at",
        description="A column of type date or timestamptz, haulier_created_at or haulier_updated_at.",
    )
    vql: dict[str, Any] = Field(default_factory=dict, description="where: only rows that meet it go (docs/vql.md).")
    revertible: bool = Field(False, description="Keep what the rows were, so that the job can be reverted.")
    batch_rows: int = Field(10_000, ge=1, le=100_000, description="Rows per transaction.")

    @model_validator(mode="after")
    def _means_some(self) -> DeleteRecordsBefore:
        if self.before is None and not self.vql.get(ONLY):
            raise ValueError("expected before or vql.where: to delete every row, drop the table")
        return self


def check(submission: Submission, config: DeleteRecordsBefore) -> None:
    """Refuse a table or a column that is not there, and a query that is more than conditions.

    Raises:
        InvalidRequestError: With pointers.
    """
    _walk(submission.tenant, submission.table(config.table, pointer="/config/table"), config)


def run(job: RunContext, config: DeleteRecordsBefore) -> Result:
    """Delete batch by batch; a killed job goes on behind its last one."""
    tables = Tables(job.sessions)
    table = tables.get(job.job.tenant, config.table)
    tables.will_write(job.job.tenant, table, job.id, whole=True)
    walk = _walk(job.job.tenant, table, config)
    make_related(tables, job.job.tenant, walk.query)
    deleted = delete(job, walk, batch_rows=config.batch_rows, revertible=config.revertible)
    return Result(
        data={"table": config.table, "deleted": deleted},
        message=f"deleted {deleted} records of {config.table}",
        outcome=Outcome.SUCCESS if deleted else Outcome.EMPTY,
    )


def _walk(tenant: str, table: Table, config: DeleteRecordsBefore) -> Walk:
    more = None if config.before is None else _before(config.before, _column(table, config.column))
    return Walk(tenant, table, conditions(table, config.vql), more)


def _column(table: Table, name: str) -> str:
    column = table.column(name)
    if name not in _WRITTEN and (column is None or column.type not in _TIMES):
        known = [column.name for column in table.columns if column.type in _TIMES]
        expected = f"expected one of {', '.join((*_WRITTEN, *known))}, got {name!r}"
        raise InvalidRequestError(
            f"{name!r} is no column of {table.name!r} that holds a time",
            code="job.config_invalid",
            problems=(Problem("/config/column", expected),),
        )
    return name


def _before(before: datetime, column: str) -> Any:
    def earlier(statement: Statement) -> str:
        return f"m.{quoted(column)} < {statement.bind(before, 'timestamptz')}"

    return earlier


JOB_TYPE = JobType(
    name="delete_records_before",
    config=DeleteRecordsBefore,
    run=run,
    check=check,
    summary="Delete the rows of a table that are older than an instant, or that a query means, in batches.",
)
