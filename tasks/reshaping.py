"""What the job types on rows that are in a table already take and check alike."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.dataplane.arranging import problems_in
from app.dataplane.enriching import Enrich
from app.dataplane.reshaping import Reshaped, Reshaping
from app.dataplane.rules import Rule
from app.dataplane.shaping import Shaping
from app.dataplane.transforms import Transform
from app.dataplane.walking import Walk
from app.domain.errors import InvalidRequestError
from app.domain.failed_records import FailedGroup
from app.domain.job_types import JobConfig, Result, Submission
from app.domain.jobs import Outcome
from app.domain.tables import Table
from tasks.walks import conditions


class RowsConfig(JobConfig):
    """Which rows, and what is done to them."""

    table: str = Field(description="A declared table.")
    vql: dict[str, Any] = Field(default_factory=dict, description="where: only rows that meet it (docs/vql.md).")
    transforms: list[Transform] = Field(
        default_factory=list, max_length=500, description="Changes to values before all else, in this order."
    )
    enrich: list[Enrich] = Field(default_factory=list, max_length=20, description="Columns that a service fills.")
    rules: list[Rule] = Field(
        default_factory=list, max_length=500, description="What rows have to keep beyond the types of the columns."
    )
    batch_rows: int = Field(5_000, ge=1, le=50_000, description="Rows per transaction.")


def reshaping_of(tenant: str, table: Table, config: RowsConfig, **how: Any) -> Reshaping:
    """A config as the data plane takes it; ``how`` is what else it is told.

    Raises:
        InvalidRequestError: It cannot be done to the table; one problem per fault, with pointers.
    """
    shaping = Shaping(config.transforms, config.enrich, config.rules)
    problems = problems_in(shaping, table, writes=how.get("writes", False))
    if problems:
        raise InvalidRequestError(
            f"the transforms, services or rules do not fit table {table.name!r}",
            code="job.config_invalid",
            problems=tuple(problems),
        )
    return Reshaping(Walk(tenant, table, conditions(table, config.vql)), shaping, config.batch_rows, **how)


def table_of(submission: Submission, config: RowsConfig) -> Table:
    """The table, when a request is checked; InvalidRequestError when there is none."""
    return submission.table(config.table, pointer="/config/table")


def result_of(table: Table, done: Reshaped, said: str) -> Result:
    """What the job tells: its books, and the rows it refused by code and column."""
    read, failed = done.books["read"], done.books["failed"]
    return Result(
        data={"table": table.name, "books": done.books, "rejects": [_reject(group) for group in done.groups]},
        message=f"{said}, {failed} refused",
        outcome=Outcome.PARTIAL if failed else Outcome.SUCCESS if read else Outcome.EMPTY,
    )


def _reject(group: FailedGroup) -> dict[str, Any]:
    return {
        "stage": group.stage,
        "code": group.code,
        "field": group.field,
        "count": group.count,
        "sample": {"line": group.line, "message": group.message, "raw": group.raw},
    }
