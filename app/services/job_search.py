"""Jobs by VQL, with the same conditions, orders and cursors as rows of tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from app.dataplane import query as rows_by_query
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.compiler import Statement
from app.dataplane.vql.model import Order
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, Problem
from app.domain.jobs import Job, Origin
from app.domain.progress import SetProgress
from app.domain.tables import Column, ColumnType, Table
from app.persistence import job_lists
from app.persistence.job_lists import Filters
from app.services import row_cursors
from app.services.reading import Reading

_TEXTS: Final = "type state outcome queue origin created_by stage cancel_reason name concurrency_key"
_NUMBERS: Final = "number rows_done rows_total bytes_done bytes_total error_count"
_TIMES: Final = "created_at updated_at run_after deadline_at admitted_at started_at finished_at"
_SMALL: Final = "priority attempts rescues parts_done parts_total"
_IDS: Final = "id parent_id clone_of schedule_id"
JOBS: Final = Table(
    "jobs",
    tuple(
        Column(name, kind)
        for kind, names in (
            (ColumnType.UUID, _IDS),
            (ColumnType.TEXT, _TEXTS),
            (ColumnType.BIGINT, _NUMBERS),
            (ColumnType.INTEGER, _SMALL),
            (ColumnType.TIMESTAMPTZ, _TIMES),
            (ColumnType.BOOLEAN, "paused cancel_requested"),
        )
        for name in names.split()
    ),
    key=("id",),
)
"""What of jobs a query may name; ``priority`` is 0 (high) to 2 (low)."""
_CATALOGUE: Final = Catalogue(JOBS)
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs in the query's order."""

    jobs: list[Job]
    next_cursor: str | None


class JobSearch:
    """The use cases of many jobs: by query, and how far they are together."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def progress(self, tenant: str, filters: Filters) -> SetProgress:
        """How far those of the tenant's jobs are together; ``vql.timeout`` when it took too long."""
        with self._reading.of_ours() as session:
            return job_lists.progress(session, tenant, filters)

    def find(
        self, tenant: str, vql: dict[str, Any], *, limit: int | None, cursor: str | None = None, pointer: str = ""
    ) -> JobPage:
        """The tenant's jobs that meet a query, newest first if it has no order.

        Args:
            limit: Jobs at most; ``None`` takes the query's own, up to 1,000, else 50.
        Raises:
            InvalidRequestError: The query cannot be used (``vql.…``), or took too long (``vql.timeout``).
            MalformedRequestError: ``cursor.invalid``.
        """
        if vql.get("select_columns") is not None:
            raise InvalidRequestError(
                "jobs are answered whole",
                code="vql.invalid",
                problems=(Problem(f"{pointer}/select_columns", "leave select_columns out"),),
            )
        query = parse({**vql, "select_columns": ["id"]}, _CATALOGUE, pointer=pointer)
        query = replace(query, order=query.order or (Order(_CATALOGUE.own["id"], descending=True),))
        if cursor is not None:
            after = row_cursors.behind(cursor, vql, query, _CATALOGUE).after
            query = replace(query, after=after)

        most = limit or min(query.limit or DEFAULT_LIMIT, MAX_LIMIT)

        def of_tenant(statement: Statement) -> Iterator[str]:
            yield f"m.tenant = {statement.bind(tenant, 'text')}"
            yield f"m.origin <> '{Origin.SYSTEM}'"

        with self._reading.of_ours() as session:
            page = rows_by_query.page(
                session, tenant, _CATALOGUE, query, limit=most, place=lambda _: "jobs", more=of_tenant
            )
            ids = [UUID(row["id"]) for row in page.rows]
            found = job_lists.get_many(session, tenant, ids)
        jobs = [found[job_id] for job_id in ids if job_id in found]
        return JobPage(jobs, row_cursors.after_page(query, _CATALOGUE, page.after))
