"""A replay: the rows that an import refused, in the text they have now, through the import's own plan."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app.dataplane.arranging import shaper_of
from app.dataplane.batches import Encoded, Encoder
from app.dataplane.chunks import Chunk, Encoding
from app.dataplane.companions import companions_of
from app.dataplane.faults import Fault
from app.dataplane.loader import COUNTERS
from app.dataplane.merging import Counts, Merger, Rows, Target, companion_counters
from app.dataplane.plan import Mode, Options, Plan, from_checkpoint
from app.dataplane.postgres_errors import retried
from app.dataplane.records import RecordReader
from app.domain.errors import JobError
from app.domain.failed_records import FailedRecord
from app.domain.job_types import JobContext, Result
from app.domain.jobs import Job, Outcome, Signals
from app.domain.tables import Table
from app.persistence import failed_records, jobs, ledger
from app.persistence.sessions import Sessions

_ROWS_A_BATCH: Final = 2_000
_FATES: Final = COUNTERS[1:]


class ReplayContext(JobContext, Protocol):
    """What a replay needs of the place it runs in."""

    @property
    def sessions(self) -> Sessions:
        """Sessions of the worker slot."""
        ...

    def heed(self, signals: Signals) -> None:
        """Take note of what a guarded write was told."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """What is to be loaded again, and how.

    Args:
        source: The import whose ledger it is; it need not have come to its end.
        codes: Only records refused with these; ``None`` is all.
    """

    source: Job
    table: Table
    options: Options
    codes: Collection[str] | None

    @property
    def plan(self) -> Plan:
        """The import's."""
        return from_checkpoint(self.source.checkpoint or {})


def replay(context: ReplayContext, work: Replay) -> Result:
    """Load what the ledger still has; each batch is resolved there in the transaction that loads it.

    Raises:
        JobError: The table refuses for another reason than its rows, or the books do not balance.
        TransientError: Another attempt may do better.
        FenceLost: Another worker has the job.
    """
    engine = context.sessions.kw["bind"]
    with engine.connect() as connection:
        writer = _Writer(context, work, connection)
        writer.prepare()
        after = (context.job.checkpoint or {}).get("replay", {}).get("line", -1)
        while after is not None:
            context.check()
            after = writer.write(after)
    return _close(context, work)


class _Writer:
    """Loads batches of the ledger on a connection of its own."""

    def __init__(self, context: ReplayContext, work: Replay, connection: Connection) -> None:
        self._context = context
        self._work = work
        self._plan = work.plan
        self._connection = connection
        self._shaper = shaper_of(self._plan, work.table, work.options, context)
        beside = companions_of(work.table)
        self._encoder = Encoder(self._plan.mapped, work.table, beside)
        tenant, mode, job_id = context.job.tenant, work.options.mode, context.id
        companions = None
        if beside and self._encoder.companion_columns:
            companions = Target(
                tenant, beside.table, self._encoder.companion_columns, Mode.UPSERT, job_id, work.options.revertible
            )
        target = Target(tenant, work.table, self._encoder.columns, mode, job_id, work.options.revertible)
        self._merger = Merger(target, companions, context.check)
        self._counters = COUNTERS + (companion_counters(companions) if companions else ())

    def prepare(self) -> None:
        """Make the stages, and say how many rows there are."""

        def once() -> None:
            with self._session() as session, session.begin():
                self._merger.prepare(session)
                if self._context.job.checkpoint is None:
                    source = self._work.source
                    _, texts = failed_records.unresolved(session, source.tenant, source.id, self._work.codes)
                    signals = jobs.advance(
                        session,
                        self._context.job,
                        rows_total=texts,
                        stage="replaying",
                        counters=dict.fromkeys(self._counters, 0),
                        checkpoint={"replay": {"line": -1}},
                    )
                    self._context.heed(signals)

        retried(once, again=self._context.check, what="the stage of a replay")

    def write(self, after: int) -> int | None:
        """Load the batch behind line ``after``; its last line, ``None`` when there was none."""
        return retried(lambda: self._write_once(after), again=self._context.check, what=f"the rows behind line {after}")

    def _session(self) -> Session:
        return self._context.sessions(bind=self._connection)

    def _write_once(self, after: int) -> int | None:
        source, by = self._work.source, self._context.id
        counts = dict.fromkeys(self._counters, 0)
        with self._session() as session, session.begin():
            records = failed_records.take(
                session, source.tenant, source.id, after=after, codes=self._work.codes, limit=_ROWS_A_BATCH
            )
            if not records:
                return None
            faults = self._load(session, records, counts)
            refused = {records[place].line: fault for place, fault in faults.items()}
            loaded = [record.line for record in records if record.line not in refused]
            failed_records.resolve(session, source.tenant, source.id, loaded, by=by)
            failed_records.refuse_again(
                session, source.tenant, source.id, {line: asdict(fault) for line, fault in refused.items()}
            )
            ledger.add(session, source.tenant, by, [_entry(records[place], faults[place]) for place in sorted(faults)])
            counts["read"] = len(records)
            last = records[-1].line
            signals = jobs.advance(
                session,
                self._context.job,
                rows=len(records),
                failed=counts["failed"],
                counters=counts,
                checkpoint={"replay": {"line": last}},
            )
        self._context.heed(signals)
        return last

    def _load(self, session: Session, records: Sequence[FailedRecord], counts: Counts) -> Mapping[int, Fault]:
        """Write those that can be; the others by place."""
        chunk = read_again(records, self._plan, self._work.options.delimiter)
        encoded = self._encoder.encode_one(self._shaper.shape(chunk) if self._shaper else chunk)
        faults = encoded.faults
        counts["failed"] = len(faults)
        if not encoded.rows:
            return faults
        rows = Rows(encoded.rows, encoded.members, encoded.companions)
        refused = self._merger.merge_by_halves(session, rows, counts, distinct=_is_distinct(encoded))
        return {**faults, **refused}


def _is_distinct(encoded: Encoded) -> bool:
    return encoded.keys is not None and len(set(encoded.keys)) == len(encoded.keys)


def _entry(record: FailedRecord, fault: Fault) -> ledger.Entry:
    """A record as the replay's own ledger has it: the text that was refused, at its place in the import's file."""
    return ledger.Entry(
        line=record.line,
        first_byte=record.first_byte,
        end_byte=record.end_byte,
        raw=record.raw if record.corrected is None else record.corrected,
        raw_is_base64=record.raw_is_base64 and record.corrected is None,
        field=fault.field,
        code=fault.code,
        message=fault.message,
    )


def read_again(records: Sequence[FailedRecord], plan: Plan, delimiter: str) -> Chunk:
    """The records as a reader gives them, each read by itself: what one lacks is not sought in the next."""
    lines: list[list[bytes]] = []
    members: list[int] = []
    faults: dict[int, Fault] = {}
    for place, record in enumerate(records):
        values = read_one(record, plan, delimiter)
        if isinstance(values, Fault):
            faults[place] = values
        else:
            lines.append(values)
            members.append(place)
    return Chunk(
        data=b"",
        first_byte=0,
        first_line=0,
        count=len(records),
        columns=[list(column) for column in zip(*lines, strict=True)] if lines else [[] for _ in range(plan.width)],
        members=members,
        faults=faults,
        blanks=[],
        lines=0,
    )


def read_one(record: FailedRecord, plan: Plan, delimiter: str) -> list[bytes] | Fault:
    """The fields of a record's text, in UTF-8, or why they cannot be had."""
    content = record.raw if record.corrected is None else record.corrected
    data, encoding = (content or "").encode(), Encoding.UTF_8
    if record.raw_is_base64 and record.corrected is None:
        data, encoding = base64.b64decode(data), plan.encoding
    reader = RecordReader(
        BytesIO(data).read, encoding=encoding, delimiter=delimiter, max_field_bytes=plan.max_field_bytes
    )
    chunks = list(reader.chunks(plan.width))
    found = sum(chunk.count for chunk in chunks)
    for chunk in chunks:
        for fault in chunk.faults.values():
            return fault
    if found != 1 or chunks[0].blanks:
        return Fault("csv.record", f"expected one record, got {found - sum(len(chunk.blanks) for chunk in chunks)}")
    return [column[0] for column in chunks[0].columns]


def _close(context: ReplayContext, work: Replay) -> Result:
    """Check the books and make the result of them."""
    source: tuple[str, UUID] = (work.source.tenant, work.source.id)
    with context.sessions.begin() as session:
        now = jobs.get(session, context.job.tenant, context.id)
        resolved = failed_records.resolved_by(session, *source, context.id)
        left, texts = failed_records.unresolved(session, *source)
    books = {name: now.counters.get(name, 0) for name in COUNTERS}
    if not books["read"] == sum(books[fate] for fate in _FATES) == resolved + books["failed"]:
        raise JobError(
            f"the books do not balance: {books}, {resolved} records are resolved",
            code="import.books_do_not_balance",
            hint="This is a fault of Haulier: the rows are in the table, but their count cannot be vouched for.",
            data={"books": books, "resolved": resolved},
        )
    outcome = Outcome.PARTIAL if books["failed"] else Outcome.SUCCESS if books["read"] else Outcome.EMPTY
    return Result(
        data={
            "job": str(work.source.id),
            "table": work.table.name,
            "books": books,
            "resolved": resolved,
            "unresolved": left,
            "without_text": left - texts,
        },
        message=f"resolved {resolved} of {books['read']} failed records",
        outcome=outcome,
    )
