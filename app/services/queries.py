"""Whole answers to queries: looked at before they are run, streamed at once, or made a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Final

from app.dataplane import query as rows_by_query
from app.dataplane.compressors import Compression
from app.dataplane.explaining import Explained, explain
from app.dataplane.export_columns import Selection, columns_of, select_rows
from app.dataplane.export_formats import FileFormat
from app.dataplane.streaming import Form, RowStream, broken_off
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.model import Query
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, Problem
from app.domain.jobs import Priority, SubmitJob
from app.domain.queries import Bounds, Estimate, Mode, Reason, why_job
from app.services.jobs import Jobs
from app.services.once import Submitted
from app.services.places import Places
from app.services.reading import Reading
from app.services.tables import Tables

log = logging.getLogger(__name__)

PREVIEW_ROWS: Final = 10
EXPORT: Final = "export"
"""The job type that a query becomes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and how its answer is wanted.

    Args:
        labels: Of the job, if it becomes one; ``priority`` and ``timeout_s`` likewise.
    """

    table: str
    vql: dict[str, Any]
    mode: Mode = Mode.AUTO
    file_format: FileFormat = "ndjson"
    compression: Compression = "none"
    header: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer at once; ``close`` must be called, and ends the query if it still runs."""

    estimate: Estimate
    blocks: Iterator[bytes]
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Deferred:
    """A job will answer."""

    estimate: Estimate
    reason: Reason
    submitted: Submitted


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of a query, and what is known of the rest."""

    rows: list[dict[str, Any]]
    explained: Explained


class Queries:
    """The use cases of queries that are answered whole.

    Args:
        bounds: The most that is answered at once.
        places: Streams at once.
        stream_timeout_s: For one whole answer.
        load: The machine's load per processor, now.
    """

    def __init__(
        self,
        tables: Tables,
        reading: Reading,
        jobs: Jobs,
        *,
        bounds: Bounds,
        places: Places,
        stream_timeout_s: float,
        load: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._reading = reading
        self._jobs = jobs
        self._bounds = bounds
        self.places = places
        self._stream_timeout_s = stream_timeout_s
        self._load = load

    def explain(self, tenant: str, table: str, vql: dict[str, Any], *, as_json: bool, pointer: str) -> Explained:
        """The plan of a query as an export would run it; nothing is run.

        Args:
            as_json: Whether the size is that of ndjson or json, not csv.
        Raises:
            NotFoundError: The tenant has no such table.
            InvalidRequestError: The query cannot be used (``vql.…``).
        """
        selection = self._selection(tenant, table, vql, pointer)
        with self._reading.transaction(tenant) as session:
            return explain(session, select_rows(selection), selection.columns, as_json=as_json)

    def preview(self, tenant: str, table: str, vql: dict[str, Any], *, limit: int, pointer: str) -> Preview:
        """The first rows of a query, ``limit`` at most, and its plan; no job is made. Errors as ``explain``."""
        selection = self._selection(tenant, table, vql, pointer)
        query = selection.query
        most = min(limit, query.limit or limit)
        with self._reading.transaction(tenant) as session:
            explained = explain(session, select_rows(selection), selection.columns)
            page = rows_by_query.page(session, tenant, Catalogue(selection.table), query, limit=most)
        return Preview(page.rows, explained)

    def would_be(self, estimate: Estimate) -> Reason | None:
        """Why a query of mode ``auto`` would become a job now; ``None`` when it would be answered at once."""
        return why_job(estimate, self._bounds, self._load())

    def ask(self, tenant: str, asked: Asked, *, actor: str, idempotency_key: str | None = None) -> Streamed | Deferred:
        """Answer a query at once, or make it a job.

        Raises:
            NotFoundError, InvalidRequestError: As ``explain``; ``vql.timeout`` when it took too long.
            UnavailableError: Mode ``stream``, and every place for streams is taken.
            ConflictError: A request with the same idempotency key is in flight.
        """
        selection = self._selection(tenant, asked.table, asked.vql, "/vql")
        with self._reading.transaction(tenant) as session:
            statement, as_json = select_rows(selection), asked.file_format != "csv"
            estimate = explain(session, statement, selection.columns, as_json=as_json).estimate
        reason = self._reason(asked.mode, estimate)
        if reason is None:
            return self._stream(tenant, selection, asked, estimate)
        # Not in the config: a request that is sent again must be the same although the estimate has moved.
        kept = {"query": {"mode": asked.mode, "reason": reason, "estimate": asdict(estimate)}}
        request = replace(_export(tenant, asked, actor), dialect=kept)
        return Deferred(estimate, reason, self._jobs.submit(request, idempotency_key=idempotency_key))

    def _reason(self, mode: Mode, estimate: Estimate) -> Reason | None:
        """Why it must be a job; ``None`` with a place for its stream taken."""
        reason = {Mode.JOB: Reason.ASKED, Mode.AUTO: self.would_be(estimate)}.get(mode)
        if reason is None and not self.places.try_take():
            if mode is Mode.AUTO:
                return Reason.LOAD
            self.places.take()
        return reason

    def _stream(self, tenant: str, selection: Selection, asked: Asked, estimate: Estimate) -> Streamed:
        form = Form(asked.file_format, asked.compression, asked.header)
        stream = RowStream(
            lambda: self._reading.transaction(tenant, timeout_s=self._stream_timeout_s),
            selection,
            form,
            timeout_s=self._stream_timeout_s,
            over=self.places.leave,
        )
        blocks = stream.blocks()
        # The first block is waited for: until then a fault can still be answered as one.
        first = next(blocks, b"")
        return Streamed(estimate, chain([first], _to_its_end(blocks, form)), blocks.close)

    def _selection(self, tenant: str, table: str, vql: dict[str, Any], pointer: str) -> Selection:
        declared = self._tables.get(tenant, table)
        catalogue = Catalogue(declared)
        query = parse(vql, catalogue, pointer=pointer)
        _check_whole(query, pointer)
        if catalogue.relation is not None and query.uses_relation:
            # Built-in tables are made at their first use, which a filter on their columns is.
            self._tables.get(tenant, catalogue.relation.table.name)
        columns = columns_of(declared, query, with_key=False, with_metadata=False)
        return Selection(tenant, declared, columns, query)


def _check_whole(query: Query, pointer: str) -> None:
    unfit = (
        (query.page is not None, "page", "a whole answer has no pages; leave page out"),
        (query.populate is not None, "company_config", "rows hold the table's own columns; leave this out"),
    )
    problems = tuple(Problem(f"{pointer}/{name}", detail) for wrong, name, detail in unfit if wrong)
    if problems:
        raise InvalidRequestError("the query is not one for whole answers", code="vql.invalid", problems=problems)


def _to_its_end(blocks: Iterator[bytes], form: Form) -> Iterator[bytes]:
    try:
        yield from blocks
    except Exception as error:  # noqa: BLE001 - whatever broke it off, the reader must see that it is not whole
        log.warning("query.broke_off", extra={"error": str(error)})
        yield broken_off(error, form)


def _export(tenant: str, asked: Asked, actor: str) -> SubmitJob:
    config = {
        "table": asked.table,
        "vql": asked.vql,
        "format": asked.file_format,
        "compression": asked.compression,
        "header": asked.header,
    }
    return SubmitJob(
        tenant=tenant,
        type=EXPORT,
        config=config,
        created_by=actor,
        priority=asked.priority,
        timeout_s=asked.timeout_s,
        labels=dict(asked.labels),
    )
