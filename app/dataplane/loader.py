"""One lane of an import: writes its part of each batch, in file order, with books and checkpoint in one transaction."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from app.dataplane.batches import Batch, Part
from app.dataplane.budget import OnInvalid
from app.dataplane.chunks import Encoding
from app.dataplane.faults import Fault
from app.dataplane.merging import Counts, Merger, Rows, Target, companion_counters
from app.dataplane.plan import Mode
from app.dataplane.postgres_errors import OverTime, retried
from app.domain.errors import JobError
from app.persistence import imports, ledger
from app.persistence.sessions import Sessions

COUNTERS: Final = ("read", "loaded", "updated", "unchanged", "superseded", "skipped", "failed")
LEDGER_RAW_BYTES: Final = 65_536
"""A longer record stands in the ledger without its text; its byte range still finds it."""

_WORK_MEM: Final = "64MB"
_MOST_WAIT: Final = 64

Finish = Callable[[Session, Part, Mapping[str, int]], None]
"""Given the open transaction, the part and its counts: writes the guarded progress as its last statement."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the lanes of a job write.

    Args:
        companions: Where the rows beside the target's go; ``None`` when there are none.
        job_id: Whose books, ledger and checkpoint they keep.
        encoding: Of the file, for the ledger's text.
        raw_rows: Refused records whose text the ledger keeps.
        batch_timeout_s: How long one transaction of a lane may take; ``None`` is as long as it takes.
        on_invalid: What becomes of refused records.
    """

    target: Target
    companions: Target | None
    job_id: UUID
    encoding: Encoding
    lanes: int
    raw_rows: int
    batch_timeout_s: float | None
    on_invalid: OnInvalid = OnInvalid.QUARANTINE

    @property
    def counters(self) -> tuple[str, ...]:
        """The job's counters that its parts add to."""
        return COUNTERS + (() if self.companions is None else companion_counters(self.companions))


class LaneWriter:
    """Writes the parts of one lane on a connection of its own.

    Args:
        check: Called before each statement that rows wait for; raises when the job is to stop.
    """

    def __init__(self, connection: Connection, sessions: Sessions, load: Load, check: Callable[[], None]) -> None:
        self._connection = connection
        self._sessions = sessions
        self._load = load
        self._check = check
        self._merger = Merger(load.target, load.companions, self._go_on)
        self._guess = _Guess(possible=load.target.mode is not Mode.UPDATE and not load.target.revertible)
        self._over_at = 0.0
        self._began_at = 0.0
        self._entered_at = 0.0
        self._tail_s = 0.0

    def prepare(self) -> None:
        """Make the lane's stages; those that another job left on the connection go."""
        retried(self._prepare_once, again=self._check, what="the stage of a lane", limit_s=self._load.batch_timeout_s)

    def _prepare_once(self) -> None:
        with self._transaction() as session:
            self._merger.prepare(session)
            self._go_on()
            self._guess.begin(empty=self._merger.is_empty(session))

    def write(self, part: Part, finish: Finish) -> Counts:
        """Write one part, its refused records, books and checkpoint, and commit; all or nothing.

        Returns:
            What became of its records: ``Load.counters``; ``refused``: those refused before they reached Postgres;
            ``left_out``: those of the skipped that were refused.
        Raises:
            TransientError: Deadlocks, too little time or a lack of room that did not pass.
            JobError: The table refuses for another reason than its rows; ``import.invalid_row``: a row was refused
                that is to fail the job.
            FenceLost: From ``finish``.
        """
        # What comes after a part's entry in the books is counted with the next part.
        self._began_at = monotonic() - self._tail_s
        counts = retried(
            lambda: self._write_once(part, finish),
            again=self._met_others,
            what=f"batch {part.batch.number}",
            limit_s=self._load.batch_timeout_s,
        )
        self._tail_s = monotonic() - self._entered_at
        return counts

    def _met_others(self) -> None:
        self._guess.was_wrong()
        self._check()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        self._over_at = monotonic() + (self._load.batch_timeout_s or 0)
        with self._sessions(bind=self._connection) as session, session.begin():
            yield session

    def _go_on(self) -> None:
        """Check, and leave the next statement what is left of the transaction's time."""
        self._check()
        if self._load.batch_timeout_s is None:
            return
        left_s = self._over_at - monotonic()
        if left_s <= 0:
            raise OverTime
        self._connection.execute(text(f"SET LOCAL statement_timeout = {max(1, int(left_s * 1000))}"))

    def _write_once(self, part: Part, finish: Finish) -> Counts:
        counts = dict.fromkeys((*self._load.counters, "refused", "left_out"), 0)
        with self._transaction() as session:
            # The checkpoint travels with the rows, so a batch that a crash takes back is read again.
            session.execute(text(f"SET LOCAL synchronous_commit = off; SET LOCAL work_mem = '{_WORK_MEM}'"))
            refused = self._merge(session, part, counts)
            faults = {**part.faults, **refused}
            self._go_on()
            counts["read"] = part.count
            counts["refused"] = len(part.faults)
            counts["failed"] += len(part.faults)
            counts["skipped"] += part.blanks
            if faults:
                self._put_aside(session, part.batch, faults, counts)
            batch = part.batch
            self._entered_at = monotonic()
            imports.add_batch(
                session,
                self._load.job_id,
                batch=batch.number,
                lane=part.lane,
                lines=(batch.first_line, batch.last_line),
                byte_range=(batch.first_byte, batch.end_byte),
                counts=counts,
                seconds=self._entered_at - self._began_at,
            )
            self._go_on()
            finish(session, part, counts)
        return counts

    def _merge(self, session: Session, part: Part, counts: Counts) -> dict[int, Fault]:
        """Write the rows; those that Postgres refuses, by place."""
        if not part.rows:
            return {}
        rows = Rows(part.rows, part.places, part.companions)
        if self._guess.is_fresh and part.distinct:
            copied = self._merger.copy_straight(session, rows)
            if copied is not None:
                counts.update(copied)
                return {}
            self._guess.was_wrong()
        refused = self._merger.merge_by_halves(session, rows, counts, distinct=part.distinct)
        self._guess.merged(fresh=counts["loaded"] == len(part.rows))
        return refused

    def _put_aside(self, session: Session, batch: Batch, faults: Mapping[int, Fault], counts: Counts) -> None:
        """What becomes of the refused records."""
        if self._load.on_invalid is OnInvalid.FAIL:
            raise self._first_refused(batch, faults)
        if self._load.on_invalid is OnInvalid.SKIP:
            counts["left_out"], counts["failed"] = counts["failed"], 0
            counts["skipped"] += counts["left_out"]
            return
        ledger.add(session, self._load.target.tenant, self._load.job_id, self._failed(batch, faults))

    @staticmethod
    def _first_refused(batch: Batch, faults: Mapping[int, Fault]) -> JobError:
        place = min(faults)
        fault, line = faults[place], batch.line_of(place)
        return JobError(
            f"line {line} was refused ({fault.code}): {fault.message}",
            code="import.invalid_row",
            hint="What stands in the batches before it is loaded. on_invalid quarantine keeps such rows and goes on.",
            data={"line": line, "field": fault.field, "code": fault.code},
        )

    def _failed(self, batch: Batch, faults: Mapping[int, Fault]) -> Iterator[ledger.Entry]:
        kept = max(0, self._load.raw_rows - batch.refused_before)
        for number, place in enumerate(sorted(faults)):
            fault = faults[place]
            chunk, local = batch.locate(place)
            text = chunk.raw(local) if number < kept else b""
            keeps = 0 < len(text) <= LEDGER_RAW_BYTES
            raw, is_base64 = as_kept(text, self._load.encoding) if keeps else (None, False)
            yield ledger.Entry(
                line=chunk.line_of(local),
                first_byte=chunk.byte_of(local),
                end_byte=chunk.byte_of(local + 1),
                raw=raw,
                raw_is_base64=is_base64,
                field=fault.field,
                code=fault.code,
                message=fault.message,
            )


class _Guess:
    """Whether the table knows none of the keys to come: then a bare COPY does, which is cheaper by a quarter.

    It is right for a table that was empty, and for a file of new rows. A wrong guess costs a batch that is written
    twice, so each one is followed by twice as many batches without a guess as the last.
    """

    def __init__(self, *, possible: bool) -> None:
        self._possible = possible
        self._wait = 1
        self._left = 1

    @property
    def is_fresh(self) -> bool:
        """Whether to try."""
        return self._possible and self._left <= 0

    def begin(self, *, empty: bool) -> None:
        """Take note of the table at the start."""
        self._left = 0 if empty else self._wait

    def merged(self, *, fresh: bool) -> None:
        """Take note of a batch that was merged; ``fresh``: all of its rows were new."""
        self._left = self._left - 1 if fresh else self._wait

    def was_wrong(self) -> None:
        """Take note of a guess that failed."""
        self._wait = min(2 * self._wait, _MOST_WAIT)
        self._left = self._wait


def as_kept(raw: bytes, encoding: Encoding) -> tuple[str, bool]:
    """A record as the ledger keeps it, and whether in base64."""
    try:
        decoded = raw.decode(encoding)
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        return base64.b64encode(raw).decode("ascii"), True
    return decoded.rstrip("\r\n"), False
