"""The bulk path: a job that fills an empty table puts its secondary indexes off and builds them over the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.dataplane import indexes
from app.dataplane.chunks import Chunk
from app.dataplane.context import ImportContext
from app.dataplane.plan import Mode, Options, Plan
from app.dataplane.postgres_errors import sqlstate
from app.dataplane.tables import qualified
from app.domain.errors import TransientError
from app.domain.tables import ColumnType, Table
from app.persistence import table_claims
from app.persistence import tables as catalogue
from app.persistence.jobs import advance

_PATIENCE: Final = "SET LOCAL lock_timeout = '200ms'"
"""Whoever asks for a table waits behind one that waits to lock it."""
_BUSY: Final = frozenset({"55P03", "40P01"})
_LOCK_S: Final = 0.2
_LANES_LOCK_S: Final = 10.0
"""Of a job's own lanes, each of which is at a batch."""
_MOST_BYTES: Final = 2**31
"""Of a file whose job builds the indexes itself, while nobody else writes: some 20 s."""
_PACKED_RATIO: Final = 4
"""What a packed file is taken to grow by."""
_ENTRY_BYTES: Final = 2_000
"""A longer value may be more than an entry of an index takes, which is 2,704 bytes after compression."""
_WORDS_BYTES: Final = 250_000
"""A longer text may be more than an index of its words takes, which is 1 MiB with their places."""
_UNBOUNDED: Final = frozenset({ColumnType.TEXT, ColumnType.NUMERIC, ColumnType.TEXT_ARRAY})


class BulkPath:
    """A table's indexes while a job fills it.

    An index refuses rows whose values are too long for it, so the first such value has the indexes built before its
    row is written: then the row is refused as ever.
    """

    def __init__(self, context: ImportContext, plan: Plan, table: Table) -> None:
        self._context = context
        self._table = table
        self._is_open = True
        self._is_large = _size_bytes(plan) > _MOST_BYTES
        self._watched = _watched(plan, table)
        self.indexes = "pending"
        """What the result tells: ``built``, or ``pending`` when that is left to the job that waits for this one."""

    def watch(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks; before one with a value that an index may refuse the indexes are built."""
        for chunk in chunks:
            if self._is_open and chunk.columns and self._is_long(chunk):
                self._close(_LANES_LOCK_S)
            yield chunk

    def _is_long(self, chunk: Chunk) -> bool:
        return any(max(map(len, chunk.columns[place]), default=0) > limit for place, limit in self._watched)

    def finish(self) -> None:
        """Build what is missing, unless that would keep others out of the table for long.

        Raises:
            JobError: Postgres refuses to build one.
            FenceLost: Another worker has the job.
        """
        if self._is_open and not self._is_large:
            with suppress(TransientError):
                self._close(_LOCK_S)

    def _close(self, lock_s: float) -> None:
        context, job = self._context, self._context.job
        with context.sessions.begin() as session:
            signals = advance(session, job, stage="indexing")
        context.heed(signals)
        indexes.build(context, job.tenant, self._table.name, lock_s=lock_s)
        with context.sessions.begin() as session:
            table_claims.release(session, job.tenant, self._table.name, by=job.id)
            signals = advance(session, job, stage="loading")
        context.heed(signals)
        self._is_open, self.indexes = False, "built"


def _watched(plan: Plan, table: Table) -> list[tuple[int, int]]:
    """The fields that go to an index and may be too long for it, each with the bytes that surely fit."""
    limits: dict[str, int] = {}
    for index in table.indexes:
        most = _WORDS_BYTES if index.words else _ENTRY_BYTES // len(index.columns)
        for name in () if index.trigram else index.columns:
            limits[name] = min(limits.get(name, most), most)
    return [
        (position, limits[name])
        for name, position in zip(plan.mapped.columns, plan.mapped.positions, strict=True)
        if name in limits and (column := table.column(name)) and column.type in _UNBOUNDED
    ]


def _size_bytes(plan: Plan) -> int:
    return plan.size_bytes * (_PACKED_RATIO if plan.is_packed else 1)


def bulk_path(context: ImportContext, plan: Plan, table: Table, options: Options) -> BulkPath | None:
    """The bulk path of a job that is on it or may take it: its file is large, its table empty, and nobody is at it."""
    least = context.settings.bulk_path_bytes
    if not 0 < least <= _size_bytes(plan) or not table.indexes:
        return None
    job = context.job
    with context.sessions.begin() as session:
        held = table_claims.holder(session, job.tenant, table.name)
        if held is None and (options.mode is Mode.UPDATE or _has_rows(session, job.tenant, table)):
            return None
    if held == job.id or (held is None and _take(context, table)):
        return BulkPath(context, plan, table)
    return None


def _take(context: ImportContext, table: Table) -> bool:
    """Drop the indexes of an empty table and claim it; whether that could be done at once.

    The claim, the drop and the job that builds them whatever becomes of this one are one transaction.
    """
    job = context.job
    try:
        with context.sessions.begin() as session:
            session.execute(text(_PATIENCE))
            catalogue.lock(session, job.tenant, table.name)
            session.execute(text(f"LOCK TABLE {qualified(job.tenant, table.name)} IN ACCESS EXCLUSIVE MODE"))
            if _has_rows(session, job.tenant, table) or not table_claims.take(session, job, table.name):
                return False
            indexes.drop(session, job.tenant, table)
            context.build_indexes_after(session, table.name, after=job.id)
            context.heed(advance(session, job))
    except DBAPIError as error:
        if sqlstate(error) in _BUSY:
            return False
        raise
    return True


def _has_rows(session: Session, tenant: str, table: Table) -> bool:
    return bool(session.execute(text(f"SELECT EXISTS (SELECT FROM {qualified(tenant, table.name)})")).scalar_one())
