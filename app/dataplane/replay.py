"""A replay: the rows that an import refused, in the text they have now, through the import's own plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app.dataplane.arranging import shaper_of
from app.dataplane.batches import Encoded, Encoder
from app.dataplane.companions import companions_of
from app.dataplane.context import ImportContext
from app.dataplane.faults import Fault
from app.dataplane.importer import null_of
from app.dataplane.loader import COUNTERS, LEDGER_RAW_BYTES
from app.dataplane.merging import Counts, Merger, Rows, Target, companion_counters
from app.dataplane.origins import Origin
from app.dataplane.plan import Mode, Options, Plan, from_checkpoint
from app.dataplane.postgres_errors import retried
from app.dataplane.reading import nulls_told, open_planned
from app.dataplane.rereading import Rereader, Text
from app.dataplane.single import read_again
from app.dataplane.spooling import UrlOrigin
from app.domain.errors import JobError
from app.domain.failed_records import FailedRecord
from app.domain.job_types import Result
from app.domain.jobs import Job, Outcome
from app.domain.tables import Table
from app.persistence import failed_records, jobs, ledger

_ROWS_A_BATCH: Final = 2_000
_FATES: Final = COUNTERS[1:]


@dataclass(frozen=True, slots=True)
class Replay:
    """What is to be loaded again, and how.

    Args:
        source: The import whose ledger it is; it need not have come to its end.
        origin: Its file, for rows whose text the ledger does not have.
        codes: Only records refused with these; ``None`` is all.
    """

    source: Job
    table: Table
    options: Options
    origin: Origin | UrlOrigin
    codes: Collection[str] | None

    @property
    def plan(self) -> Plan:
        """The import's."""
        return from_checkpoint(self.source.checkpoint or {})


def replay(context: ImportContext, work: Replay) -> Result:
    """Load what the ledger still has; each batch is resolved there in the transaction that loads it.

    Raises:
        JobError: The table refuses for another reason than its rows, or the books do not balance.
        TransientError: Another attempt may do better.
        FenceLost: Another worker has the job.
    """
    engine = context.sessions.kw["bind"]
    rereader = Rereader(partial(open_planned, context, work.origin, work.plan), work.plan, go_on=context.check)
    with engine.connect() as connection, closing(rereader) as file:
        writer = _Writer(context, work, connection, file)
        writer.prepare()
        after = (context.job.checkpoint or {}).get("replay", {}).get("line", -1)
        while after is not None:
            context.check()
            after = writer.write(after)
    return _close(context, work, file.lost)


class _Writer:
    """Loads batches of the ledger on a connection of its own."""

    def __init__(self, context: ImportContext, work: Replay, connection: Connection, file: Rereader) -> None:
        self._context = context
        self._work = work
        self._plan = work.plan
        self._connection = connection
        self._file = file
        self._texts: dict[int, Text] = {}
        self._read_up_to: int | None = -1
        self._shaper = shaper_of(self._plan, work.table, context)
        beside = companions_of(work.table)
        self._encoder = Encoder(self._plan.mapped, work.table, beside, keeps_empty=self._plan.keeps_empty)
        tenant, mode, job_id = context.job.tenant, work.options.mode, context.id
        companions = None
        if beside and self._encoder.companion_columns:
            companions = Target(
                tenant, beside.table, self._encoder.companion_columns, Mode.UPSERT, job_id, work.options.revertible
            )
        columns, null = self._encoder.columns, null_of(self._plan)
        target = Target(tenant, work.table, columns, mode, job_id, work.options.revertible, null)
        self._merger = Merger(target, companions, context.check)
        self._counters = COUNTERS + (companion_counters(companions) if companions else ())

    def prepare(self) -> None:
        """Make the stages, and say how many rows there are."""

        def once() -> None:
            with self._session() as session, session.begin():
                self._merger.prepare(session)
                if self._context.job.checkpoint is None:
                    source = self._work.source
                    waiting, _ = failed_records.unresolved(session, source.tenant, source.id, self._work.codes)
                    signals = jobs.advance(
                        session,
                        self._context.job,
                        rows_total=waiting,
                        stage="replaying",
                        counters=dict.fromkeys(self._counters, 0),
                        checkpoint={"replay": {"line": -1}},
                    )
                    self._context.heed(signals)

        retried(once, again=self._context.check, what="the stage of a replay")

    def write(self, after: int) -> int | None:
        """Load the batch behind line ``after``; its last line, ``None`` when there was none."""
        if self._read_up_to is not None and after >= self._read_up_to:
            self._read_texts(after)
        last = retried(lambda: self._write_once(after), again=self._again, what=f"the rows behind line {after}")
        if self._shaper:
            self._shaper.keep()
        return last

    def _again(self) -> None:
        if self._shaper:
            self._shaper.forget()
        self._context.check()

    def _read_texts(self, after: int) -> None:
        """Get from the file what the ledger has no text of, before anything is locked; up to a line, or all."""
        source = self._work.source
        with self._context.sessions.begin() as session:
            places = failed_records.without_text(
                session, source.tenant, source.id, after=after, codes=self._work.codes, limit=_ROWS_A_BATCH
            )
        self._texts = self._file.texts(places)
        all_read = self._file.lost or (len(places) < _ROWS_A_BATCH and len(self._texts) == len(places))
        self._read_up_to = None if all_read else max(self._texts)

    def _session(self) -> Session:
        return self._context.sessions(bind=self._connection)

    def _write_once(self, after: int) -> int | None:
        source, by = self._work.source, self._context.id
        counts = dict.fromkeys(self._counters, 0)
        with self._session() as session, session.begin():
            records = failed_records.take(
                session,
                source.tenant,
                source.id,
                after=after,
                up_to=self._read_up_to,
                codes=self._work.codes,
                read=self._texts,
                limit=_ROWS_A_BATCH,
            )
            if not records:
                return self._read_up_to
            records = [self._with_text(record) for record in records]
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

    def _with_text(self, record: FailedRecord) -> FailedRecord:
        if record.has_text:
            return record
        raw, is_base64 = self._texts[record.line]
        return replace(record, raw=raw, raw_is_base64=is_base64)

    def _load(self, session: Session, records: Sequence[FailedRecord], counts: Counts) -> Mapping[int, Fault]:
        """Write those that can be; the others by place."""
        chunk = nulls_told(read_again(records, self._plan), self._plan)
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
    text = record.raw if record.corrected is None else record.corrected
    return ledger.Entry(
        line=record.line,
        first_byte=record.first_byte,
        end_byte=record.end_byte,
        raw=text if text is None or len(text) <= LEDGER_RAW_BYTES else None,
        raw_is_base64=record.raw_is_base64 and record.corrected is None,
        field=fault.field,
        code=fault.code,
        message=fault.message,
    )


def _close(context: ImportContext, work: Replay, lost: JobError | None) -> Result:
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
            "without_text": left - texts if lost else 0,
            **({"source": {"code": lost.code, "message": lost.detail}} if lost else {}),
        },
        message=f"resolved {resolved} of {books['read']} failed records",
        outcome=outcome,
    )
