"""``validate``: rows that are in a table already are held to rules, and nothing is done to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.dataplane.reshaping import reshape
from app.domain.job_types import JobType, Result, Submission
from app.services.tables import Tables
from tasks.reshaping import RowsConfig, reshaping_of, result_of, table_of
from tasks.walks import make_related

if TYPE_CHECKING:
    from tasks.context import RunContext


class ValidateRows(RowsConfig):
    """Which rows, and what they are held to, beside what their columns are declared to ask."""


def check(submission: Submission, config: ValidateRows) -> None:
    """Refuse a table or a column that is not there.

    Raises:
        InvalidRequestError: With pointers.
    """
    reshaping_of(submission.tenant, table_of(submission, config), config)


def run(job: RunContext, config: ValidateRows) -> Result:
    """Look at the rows batch by batch; a killed job goes on behind its last one."""
    tables, tenant = Tables(job.sessions), job.job.tenant
    table = tables.get(tenant, config.table)
    work = reshaping_of(tenant, table, config)
    make_related(tables, tenant, work.walk.query)
    done = reshape(job, work)
    return result_of(table, done, f"looked at {done.books['read']} rows of {table.name}, wrote none")


JOB_TYPE = JobType(
    name="validate",
    config=ValidateRows,
    run=run,
    check=check,
    summary="Hold rows that are in a table already to rules, and report by rule and column; no row is written.",
)
