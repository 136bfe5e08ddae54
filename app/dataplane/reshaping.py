"""Rows that are in a table already, shaped as an import would: written back, or judged alone.

A batch is a transaction, which locks the rows it writes, and a killed job goes on behind its last one. Services are
asked before the transaction begins, and within it about those rows alone that others changed in between.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane import books
from app.dataplane.batches import NULL_WRITTEN, Encoded, Encoder
from app.dataplane.budget import Budget
from app.dataplane.chunks import NULL, Chunk
from app.dataplane.context import ImportContext
from app.dataplane.faults import Fault
from app.dataplane.merging import Merger, Rows, Target
from app.dataplane.plan import Mapped, Mode
from app.dataplane.postgres_errors import retried
from app.dataplane.shaping import Layout, Shaper, Shaping
from app.dataplane.tables import quoted
from app.dataplane.walking import Key, Walk, walk_on
from app.domain.errors import JobError
from app.domain.failed_records import FailedGroup
from app.domain.jobs import Job
from app.domain.tables import Table
from app.persistence import failed_records, imports, jobs, ledger

COUNTERS: Final = ("read", "changed", "unchanged", "failed")
_MERGED: Final = ("loaded", "updated", "superseded", "unchanged", "skipped", "failed")
_Row = Sequence[str | None]
"""A row's values as text, ``Reshaping.fields`` in order."""


@dataclass(frozen=True, slots=True)
class Reshaping:
    """What is done to which rows.

    Args:
        walk: The rows.
        batch_rows: Rows per transaction.
        writes: What comes of them is written; else they are judged, and ``unchanged`` are those without a fault.
        revertible: What the rows were before is kept.
        budget: How many rows may be refused; ``None`` is any number.
    """

    walk: Walk
    shaping: Shaping
    batch_rows: int
    writes: bool = False
    revertible: bool = False
    budget: Budget | None = None

    @property
    def table(self) -> Table:
        """The rows' table."""
        return self.walk.table

    @property
    def fixed(self) -> dict[str, Any]:
        """What a job is all through; the rest of its config may change while it is paused."""
        return {"table": self.table.name, "revertible": self.revertible}

    @property
    def checked(self) -> tuple[str, ...]:
        """The columns whose values are held to their declaration: those written, and if none is, all that ask much."""
        written = tuple(self.shaping.written)
        if self.writes:
            return (*self.table.key, *written)
        asking = (one.name for one in self.table.columns if one.required or one.max_length is not None or one.format)
        return tuple(dict.fromkeys((*self.table.key, *written, *asking)))

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that are read, the key's first."""
        named = (name for rule in self.shaping.rules for name in rule.fields)
        return tuple(dict.fromkeys((*self.checked, *self.shaping.sources, *named)))


@dataclass(frozen=True, slots=True)
class Reshaped:
    """What became of the rows of all runs of a job: the counts, and the refused by code and column."""

    books: dict[str, int]
    groups: list[FailedGroup]


def reshape(context: ImportContext, work: Reshaping) -> Reshaped:
    """Shape every row of the walk; a row that is refused stays as it was, and stands in the ledger with its key.

    Raises:
        TransientError: Another attempt may do better.
        JobError: The table refuses for another reason than its rows, or the books do not balance.
        JobPaused: Too many rows were refused.
        FenceLost: Another worker has the job.
    """
    if context.job.checkpoint is None:
        _begin(context, work)
    elif context.job.checkpoint != {**context.job.checkpoint, **work.fixed}:
        raise JobError(
            "the config now names another table, or says otherwise whether the job can be reverted",
            code="import.config_changed",
        )
    with context.sessions.kw["bind"].connect() as connection:
        batches = _Batches(context, work, lambda: context.sessions(bind=connection))
        batches.prepare()
        now = walk_on(context, batches.shape)
    return _closed(context, now)


def _begin(context: ImportContext, work: Reshaping) -> None:
    rows = work.walk.page(["count(*)"], after=None)
    with context.sessions.begin() as session:
        signals = jobs.advance(
            session,
            context.job,
            rows_total=session.execute(text(rows.sql), rows.parameters).scalar_one(),
            stage="transforming" if work.writes else "validating",
            counters=dict.fromkeys(COUNTERS, 0),
            checkpoint={**work.fixed, "walk": None},
        )
    context.heed(signals)


def _closed(context: ImportContext, now: Job) -> Reshaped:
    balanced = books.of_counters(now, COUNTERS, rows="written")
    with context.sessions.begin() as session:
        return Reshaped(balanced, failed_records.groups(session, now.tenant, now.id))


class _Batches:
    """Shapes batch by batch on a connection of its own."""

    def __init__(self, context: ImportContext, work: Reshaping, session: Callable[[], Session]) -> None:
        self._context = context
        self._work = work
        self._session = session
        table, fields, checked = work.table, work.fields, work.checked
        positions = {name: place for place, name in enumerate(fields)}
        self._columns = {column.name: column for column in table.columns}
        layout = Layout(positions, {name: self._columns[name] for name in fields}, len(fields))
        self._shaper = Shaper(work.shaping, layout, context, keeps_null=True)
        self._written = [positions[name] for name in work.shaping.written]
        mapped = Mapped(checked, tuple(positions[name] for name in checked), generates_key=False)
        self._encoder = Encoder(mapped, table, keeps_empty=True)
        target = Target(
            context.job.tenant, table, checked, Mode.UPDATE, context.id, work.revertible, NULL_WRITTEN.decode()
        )
        self._merger = Merger(target, None, context.check) if work.writes else None
        counted = context.job.counters
        self._read, self._failed = counted.get("read", 0), counted.get("failed", 0)

    def prepare(self) -> None:
        """Make the stage, know what earlier runs have seen, and what budget they were granted."""
        retried(self._prepare_once, again=self._context.check, what="the stage")
        kept = (self._context.job.checkpoint or {}).get("walk")
        if kept and self._shaper.remembers:
            # A row that others deleted since is not seen again; those that they added are.
            self._shaper.recall(self._behind_us(tuple(kept)), records=sys.maxsize)

    def _prepare_once(self) -> None:
        with self._session() as session, session.begin():
            if self._merger:
                self._merger.prepare(session)
            self._spent = imports.spent(session, self._context.id)

    def _behind_us(self, last: Key) -> Iterator[Chunk]:
        after: Key | None = None
        while after != last:
            self._context.tell()
            with self._session() as session, session.begin():
                rows = self._rows(session, after, upto=last)
            if not rows:
                return
            yield _chunk(rows)
            after = self._key(rows[-1])

    def shape(self, after: Key | None) -> Key | None:
        """Shape the rows behind ``after``; the key of the last, ``None`` when there was none."""
        self._shaper.forget()
        if self._work.shaping.enrich:
            self._ask_ahead(after)
        with self._session() as session, session.begin():
            rows = self._rows(session, after, locked=self._work.writes)
            if not rows:
                return None
            last = self._key(rows[-1])
            encoded = self._encoded(rows)
            counts, faults = self._write(session, encoded)
            entries = [self._entry(rows[place], place, faults[place]) for place in sorted(faults)]
            ledger.add(session, self._context.job.tenant, self._context.id, entries)
            signals = jobs.advance(
                session,
                self._context.job,
                rows=counts["read"],
                failed=counts["failed"],
                counters=counts,
                checkpoint={**self._work.fixed, "walk": last},
            )
        self._context.heed(signals)
        self._committed(counts)
        return last

    def _committed(self, counts: Mapping[str, int]) -> None:
        self._shaper.keep()
        self._read += counts["read"]
        self._failed += counts["failed"]
        if self._work.budget:
            self._work.budget.check(self._spent, self._read, self._failed)

    def _ask_ahead(self, after: Key | None) -> None:
        """Have the services asked while no transaction is open: their answers are remembered."""
        with self._session() as session, session.begin():
            rows = self._rows(session, after)
        self._shaper.shape(_chunk(rows))
        self._shaper.forget()

    def _rows(
        self, session: Session, after: Key | None, *, upto: Key | None = None, locked: bool = False
    ) -> Sequence[_Row]:
        columns = [f"m.{quoted(name)}::text AS f{place}" for place, name in enumerate(self._work.fields)]
        page = self._work.walk.page(columns, after=after, upto=upto, limit=self._work.batch_rows)
        lock = " FOR UPDATE OF m" if locked else ""
        return [tuple(row) for row in session.execute(text(page.sql + lock), page.parameters)]

    def _key(self, row: _Row) -> Key:
        return tuple(str(value) for value in row[: len(self._work.table.key)])

    def _encoded(self, rows: Sequence[_Row]) -> Encoded:
        """The rows, shaped. What was taken from a value leaves NULL; empty text that was there stays."""
        chunk = _chunk(rows)
        before = {place: list(chunk.columns[place]) for place in self._written}
        self._shaper.shape(chunk)
        for place, old in before.items():
            pairs = zip(chunk.columns[place], chunk.members, strict=True)
            chunk.columns[place] = [value or (old[member] and NULL) for value, member in pairs]
        return self._encoder.encode_one(chunk)

    def _write(self, session: Session, encoded: Encoded) -> tuple[dict[str, int], Mapping[int, Fault]]:
        """Write the rows that are to be; what became of them, and those that were refused, by place."""
        read, refused = encoded.chunk.count, encoded.faults
        merged = dict.fromkeys(_MERGED, 0)
        if self._merger and encoded.rows:
            rows = Rows(encoded.rows, encoded.members, ())
            refused = {**refused, **self._merger.merge_by_halves(session, rows, merged, distinct=True)}
        changed, failed = merged["updated"], len(refused)
        unchanged = merged["unchanged"] if self._merger else read - failed
        return {"read": read, "changed": changed, "unchanged": unchanged, "failed": failed}, refused

    def _entry(self, row: _Row, place: int, fault: Fault) -> ledger.Entry:
        """A row in the ledger: its number in the walk for a line, and its key for a text."""
        key = dict(zip(self._work.table.key, self._key(row), strict=True))
        return ledger.Entry(
            line=self._read + place + 1,
            first_byte=0,
            end_byte=0,
            raw=json.dumps({"table": self._work.table.name, "key": key}, ensure_ascii=False),
            raw_is_base64=False,
            field=fault.field,
            code=fault.code,
            message=fault.message,
        )


def _chunk(rows: Sequence[_Row]) -> Chunk:
    """Rows of a table as a reader gives those of a file."""
    columns = [[NULL if value is None else value.encode() for value in column] for column in zip(*rows, strict=True)]
    return Chunk(
        data=b"",
        first_byte=0,
        first_line=0,
        count=len(rows),
        columns=columns,
        members=range(len(rows)),
        faults={},
        blanks=[],
        lines=0,
    )
