"""``transform``: values of rows that are in a table already are changed, as an import would change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from app.dataplane.budget import Budget, OnBudget
from app.dataplane.reshaping import reshape
from app.domain.job_types import JobType, Result, Submission
from app.services.tables import Tables
from tasks.reshaping import RowsConfig, reshaping_of, result_of, table_of
from tasks.walks import make_related

if TYPE_CHECKING:
    from tasks.context import RunContext


class TransformRows(RowsConfig):
    """Which rows, and what is done to them."""

    max_errors: int | None = Field(None, ge=0, description="Stop when more rows than this are refused.")
    max_error_rate: float | None = Field(None, ge=0, le=1, description="Stop when a larger part is refused.")
    on_budget: Literal["pause", "fail"] = Field(
        "pause", description="What becomes of a job that stops so: it waits to be resumed, or fails."
    )
    revertible: bool = Field(
        False, description="Keep what rows were before, so that the job can be reverted until it is past its time."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> TransformRows:
        if not self.transforms and not self.enrich:
            raise ValueError("expected transforms or enrich: rules alone are what a job of type validate looks at")
        return self


def check(submission: Submission, config: TransformRows) -> None:
    """Refuse a table or a column that is not there, and what cannot be done to rows that are found by their key.

    Raises:
        InvalidRequestError: With pointers.
    """
    reshaping_of(submission.tenant, table_of(submission, config), config, writes=True)


def run(job: RunContext, config: TransformRows) -> Result:
    """Change the rows batch by batch; a killed job goes on behind its last one."""
    tables, tenant = Tables(job.sessions), job.job.tenant
    table = tables.get(tenant, config.table)
    tables.will_write(tenant, table, job.id, whole=True)
    work = reshaping_of(tenant, table, config, writes=True, revertible=config.revertible, budget=_budget(job, config))
    make_related(tables, tenant, work.walk.query)
    done = reshape(job, work)
    return result_of(table, done, f"changed {done.books['changed']} of {done.books['read']} rows of {table.name}")


def _budget(job: RunContext, config: TransformRows) -> Budget:
    return Budget(
        max_errors=config.max_errors,
        max_rate=job.settings.error_budget_rate if config.max_error_rate is None else config.max_error_rate,
        after_rows=job.settings.error_budget_after_rows,
        on_budget=OnBudget(config.on_budget),
    )


JOB_TYPE = JobType(
    name="transform",
    config=TransformRows,
    run=run,
    check=check,
    summary="Change values of rows that are in a table already; a row that a rule refuses stays as it was.",
)
