"""An import from its claim to its result: one thread reads and checks, each lane's thread writes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.dataplane import books, reading
from app.dataplane.batches import NULL_WRITTEN, Batch, Encoder, Part, in_batches, parts_of
from app.dataplane.budget import Budget
from app.dataplane.bulk import BulkPath, bulk_path
from app.dataplane.companions import companions_of
from app.dataplane.context import ImportContext
from app.dataplane.loader import COUNTERS, LaneWriter, Load
from app.dataplane.mapping import replanned
from app.dataplane.merging import Target
from app.dataplane.mirror.following import Follower
from app.dataplane.origins import Origin
from app.dataplane.plan import Mode, Options, Plan, from_checkpoint
from app.dataplane.shaped import Shaped
from app.dataplane.sheets import SheetSource, seen_of
from app.dataplane.sources import ByteSource
from app.dataplane.spooling import UrlOrigin, copy_of
from app.domain.errors import FenceLost
from app.domain.job_types import Result
from app.domain.jobs import Outcome
from app.domain.ports import ObjectRef
from app.domain.tables import Table
from app.persistence import artifacts, imports
from app.persistence.jobs import advance

_WAITING_PARTS: Final = 1
"""Parts that wait for each lane: the reader is at most so many batches ahead."""
_POLL_S: Final = 0.02


def import_file(context: ImportContext, origin: Origin | UrlOrigin, table: Table, options: Options) -> Result:
    """Load a file into ``table``; a killed import goes on where each lane's last commit left it.

    Raises:
        JobError: The file cannot be imported (``csv.*``, ``json.*``, ``source.*``, ``s3.*``), or is not the one begun
            with.
        TransientError: Another attempt may do better.
        JobPaused: Too many records were refused.
        FenceLost: Another worker has the job.
    """
    work = _Work(context, origin, table, options)
    with Follower(context, _written(table, options)) as mirror, ExitStack() as held:
        plan, begun = work.plan(held)
        loaded = work.load(plan, _Beginning.of(context, plan), begun=begun)
        if loaded.bulk:
            loaded.bulk.finish()
        mirrored = mirror.finish()
    result = _close(context, plan, table, loaded)
    result = mirrored.told(result)
    return replace(result, data={**result.data, "indexes": loaded.bulk.indexes}) if loaded.bulk else result


def _written(table: Table, options: Options) -> list[Table]:
    """The tables that an import writes."""
    companions = companions_of(table) if options.companions else None
    return [table] if companions is None else [table, companions.table]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """How many records the file has up to where it was loaded, where they end, and the table's indexes meanwhile.

    Args:
        seen: As in the plan, with what was seen since.
    """

    records: int
    end_byte: int
    bulk: BulkPath | None
    seen: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be imported, and how."""

    context: ImportContext
    origin: Origin | UrlOrigin
    table: Table
    options: Options

    def plan(self, held: ExitStack) -> tuple[Plan, ByteSource | None]:
        """The plan of the job's first claim, or a new one when the config was changed since; this one's, at the first.

        A sheet's records, too, where they are begun already; ``held`` closes them in the end.

        Lanes that are behind first go on, by the plan of then, to where the furthest is: so each batch is read by one
        plan in every lane, and no record is counted in two ways.
        """
        checkpoint = self.context.job.checkpoint or {}
        if "import" not in checkpoint:
            return _first_plan(self.context, self.origin, self.table, self.options, held)
        plan = from_checkpoint(checkpoint)
        if plan.fingerprint == self.options.fingerprint(self.origin.place, self.table.name):
            return plan, None
        most = self.context.settings.max_columns
        changed = replanned(plan, self.table, self.options, self.origin.place, max_columns=most)
        begin = _Beginning.of(self.context, plan)
        if begin.furthest >= begin.place.batch:
            self.load(plan, begin, last_batch=begin.furthest)
        with self.context.sessions.begin() as session:
            signals = advance(session, self.context.job, checkpoint=changed.to_checkpoint())
        self.context.heed(signals)
        return changed, None

    def load(
        self, plan: Plan, begin: _Beginning, *, last_batch: int | None = None, begun: ByteSource | None = None
    ) -> _Loaded:
        """Load the rest of the file, or up to a batch, by the plan alone; ``begun`` is that rest if it is open."""
        context, table = self.context, self.table
        with closing(begun or reading.open_planned(context, self.origin, plan, begin.place.byte)) as source:
            reader = reading.reader_of(plan, source, begin.place)
            chunks = reading.chunks_of(plan, reader)
            if plan.shaping:
                shaped = Shaped(context, self.origin, plan, table)
                chunks = shaped.chunks(chunks, done=begin.records)
            account = _Account(context, plan, self.options, begin)
            bulk = bulk_path(context, plan, table, self.options)
            encoder = Encoder(plan.mapped, table, companions_of(table), keeps_empty=plan.keeps_empty)
            encoded = encoder.encode(bulk.watch(chunks) if bulk else chunks)
            batches: Iterable[Batch] = in_batches(
                encoded, batch_rows=plan.batch_rows, batch_bytes=plan.batch_bytes, first=begin.place.batch
            )
            if last_batch is not None:
                batches = islice(batches, last_batch - begin.place.batch + 1)
            with _Lanes(context, _load(context, plan, table, self.options, encoder), begin, account) as lanes:
                fresh = _feed(lanes, plan.lanes, context.check, _placed(batches, plan, begin, source))
            seen = {**plan.seen, **seen_of(source.found)} if isinstance(source, SheetSource) else plan.seen
        return _Loaded(begin.records + fresh, reader.next_byte, bulk, seen)


def _first_plan(
    context: ImportContext, origin: Origin | UrlOrigin, table: Table, options: Options, held: ExitStack
) -> tuple[Plan, ByteSource | None]:
    plan, begun = reading.first_plan(context, origin, table, options, held)
    with context.sessions.begin() as session:
        if plan.spool:
            artifacts.put(session, context.job.tenant, copy_of(context, ObjectRef(*plan.spool), plan.size_bytes))
        signals = advance(
            session,
            context.job,
            bytes_total=plan.size_bytes,
            stage="loading",
            counters=dict.fromkeys(COUNTERS, 0),
            checkpoint=plan.to_checkpoint(),
        )
    context.heed(signals)
    return plan, begun


@dataclass(frozen=True, slots=True)
class _Beginning:
    """Where this run begins: the first batch that some lane has not committed, and how far each lane is.

    Args:
        records: Of the file, before that place.
        totals: What became of the records committed before; ``spent`` as in ``Budget.check``.
    """

    place: imports.Place
    records: int
    committed: Mapping[int, int]
    totals: Mapping[str, int]
    spent: tuple[int, int]

    @property
    def furthest(self) -> int:
        """The last batch that some lane has committed; -1 when none has."""
        return max(self.committed.values(), default=-1)

    @classmethod
    def of(cls, context: ImportContext, plan: Plan) -> _Beginning:
        with context.sessions.begin() as session:
            committed = imports.lanes(session, context.id)
            totals, spent = imports.totals(session, context.id), imports.spent(session, context.id)
            common = min(committed.get(lane, -1) for lane in range(plan.lanes))
            place, records = imports.Place(0, plan.first_byte, plan.first_line, 0), 0
            if common >= 0:
                place = imports.place_after(session, context.id, common)
                records = imports.records_upto(session, context.id, common)
            return cls(place, records, committed, totals, spent)


# The work


def _load(context: ImportContext, plan: Plan, table: Table, options: Options, encoder: Encoder) -> Load:
    tenant, job_id = context.job.tenant, context.id
    companions = companions_of(table)
    return Load(
        target=Target(tenant, table, encoder.columns, options.mode, job_id, options.revertible, null_of(plan)),
        companions=Target(tenant, companions.table, encoder.companion_columns, Mode.UPSERT, job_id, options.revertible)
        if companions and encoder.companion_columns
        else None,
        job_id=job_id,
        encoding=plan.encoding,
        lanes=plan.lanes,
        raw_rows=context.settings.ledger_raw_rows,
        batch_timeout_s=options.batch_timeout_s,
        on_invalid=options.on_invalid,
    )


def null_of(plan: Plan) -> str:
    """How NULL is written in the rows of a plan."""
    return NULL_WRITTEN.decode() if plan.keeps_empty else ""


def _feed(lanes: _Lanes, count: int, check: Callable[[], None], batches: Iterable[Batch]) -> int:
    """Read to the end of the file while the lanes write; how many records were read."""
    records = 0
    for batch in batches:
        check()
        for part in parts_of(batch, count):
            lanes.put(part)
        records += batch.count
    lanes.finish()
    return records


def _placed(batches: Iterable[Batch], plan: Plan, begin: _Beginning, source: ByteSource) -> Iterator[Batch]:
    """The batches, each with how far the source was read and how many records were refused before."""
    refused = begin.place.refused
    for batch in batches:
        batch.refused_before = refused
        batch.stored_bytes_read = source.stored_bytes_read if plan.is_packed else batch.end_byte
        refused += len(batch.faults)
        yield batch


class _Account:
    """What the lanes have done for the job, and when that is too bad to go on; used by every lane's thread."""

    def __init__(self, context: ImportContext, plan: Plan, options: Options, begin: _Beginning) -> None:
        settings = context.settings
        self._context = context
        self._lock = threading.Lock()
        self._stored = dict.fromkeys(range(plan.lanes), 0 if plan.is_packed else begin.place.byte)
        self._read = begin.totals.get("read", 0)
        self._failed = begin.totals.get("failed", 0) + begin.totals.get("left_out", 0)
        self._spent = begin.spent
        self._budget = Budget(
            max_errors=options.max_errors,
            max_rate=settings.error_budget_rate if options.max_error_rate is None else options.max_error_rate,
            after_rows=settings.error_budget_after_rows,
            on_budget=options.on_budget,
        )

    def finish(self, session: Session, part: Part, counts: Mapping[str, int]) -> None:
        """The guarded progress of a part: the last statement of its transaction."""
        with self._lock:
            stored = {**self._stored, part.lane: part.batch.stored_bytes_read}
        signals = advance(
            session,
            self._context.job,
            rows=counts["read"],
            failed=counts["failed"],
            bytes_done=min(stored.values()),
            counters={name: count for name, count in counts.items() if name not in ("refused", "left_out")},
        )
        self._context.heed(signals)

    def committed(self, part: Part, counts: Mapping[str, int]) -> None:
        """Take note of a part that is in.

        Raises:
            JobPaused: More records were refused than the job may spend; ``JobError``: it is to fail then.
        """
        with self._lock:
            self._stored[part.lane] = part.batch.stored_bytes_read
            self._read += counts["read"]
            self._failed += counts["failed"] + counts["left_out"]
            read, failed = self._read, self._failed
        self._budget.check(self._spent, read, failed)


class _Lanes:
    """The lanes' threads and what waits for them. Leaving the context stops them and raises what stopped them."""

    def __init__(self, context: ImportContext, load: Load, begin: _Beginning, account: _Account) -> None:
        self._context = context
        self._load = load
        self._begin = begin
        self._account = account
        self._queues: list[queue.Queue[Part | None]] = [queue.Queue(_WAITING_PARTS) for _ in range(load.lanes)]
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(load.lanes, thread_name_prefix="lane")
        self._futures: list[Future[None]] = []

    def __enter__(self) -> _Lanes:
        self._futures = [self._pool.submit(self._run, lane) for lane in range(len(self._queues))]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        failures = [failure for future in self._futures if (failure := future.exception())]
        for failure in sorted(failures, key=lambda failure: not isinstance(failure, FenceLost)):
            raise failure

    def put(self, part: Part) -> None:
        """Hand a part to its lane; waits while the lane has enough.

        Raises:
            _LaneStopped: A lane has failed; leaving the context raises what it failed of.
        """
        self._put(part.lane, part)

    def finish(self) -> None:
        """Wait until the lanes have written all they were given."""
        for lane in range(len(self._queues)):
            self._put(lane, None)
        for future in self._futures:
            future.exception()

    def _put(self, lane: int, part: Part | None) -> None:
        while not self._stop.is_set():
            try:
                self._queues[lane].put(part, timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _LaneStopped

    def _run(self, lane: int) -> None:
        try:
            engine: Engine = self._context.sessions.kw["bind"]
            with engine.connect() as connection:
                writer = LaneWriter(connection, self._context.sessions, self._load, self._context.check)
                writer.prepare()
                for part in self._parts(lane):
                    counts = writer.write(part, self._account.finish)
                    self._account.committed(part, counts)
        except BaseException:
            self._stop.set()
            raise

    def _parts(self, lane: int) -> Iterator[Part]:
        """The lane's parts in file order, without those it committed in an earlier run."""
        committed = self._begin.committed.get(lane, -1)
        while not self._stop.is_set():
            try:
                part = self._queues[lane].get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if part is None:
                return
            if part.batch.number > committed:
                yield part


class _LaneStopped(Exception):  # noqa: N818 - it is a signal, replaced by the lane's own error
    """A lane has ended early."""


# The end


def _close(context: ImportContext, plan: Plan, table: Table, loaded: _Loaded) -> Result:
    """Check the books and make the result of them."""
    with context.sessions.begin() as session:
        closed = books.close(session, context.id, plan, records=loaded.records, end_byte=loaded.end_byte)
        if plan.spool:
            artifacts.end_source(session, context.job.tenant, context.id, at=context.clock.now())
        context.heed(advance(session, context.job, bytes_done=plan.size_bytes, rows_total=closed.read, stage="loaded"))
    good = closed.read - closed.failed - closed.skipped
    outcome = Outcome.PARTIAL if closed.failed else Outcome.SUCCESS if closed.read else Outcome.EMPTY
    return Result(
        data={
            "table": table.name,
            "books": closed.as_dict(),
            "bytes": loaded.end_byte,
            "lanes": plan.lanes,
            "batch_rows": plan.batch_rows,
            **loaded.seen,
        },
        message=f"successfully loaded {good} of {closed.read} records",
        outcome=outcome,
    )
