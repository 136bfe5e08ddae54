"""One lane of an import: writes its part of each batch, in file order, with books and checkpoint in one transaction."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.dataplane.batches import Batch, Part
from app.dataplane.faults import Fault
from app.dataplane.plan import Mode
from app.dataplane.records import Encoding
from app.dataplane.tables import qualified, quoted
from app.domain.errors import JobError, TransientError
from app.domain.tables import Table
from app.persistence import imports, ledger
from app.persistence.sessions import Sessions

COUNTERS: Final = ("read", "loaded", "updated", "unchanged", "superseded", "skipped", "failed")
LEDGER_RAW_BYTES: Final = 65_536
"""A longer record stands in the ledger without its text; its byte range still finds it."""

_STAGE: Final = "haulier_stage"
_PLACE: Final = "haulier_place"
_ROW_FAULTS: Final = ("22", "23", "54000")
_RETRIED: Final = frozenset({"40001", "40P01", "55P03"})
_NO_ROOM: Final = "53"
_ATTEMPTS: Final = 6
_FIRST_WAIT_S: Final = 0.05
_TEMP_BUFFERS: Final = "64MB"
_WORK_MEM: Final = "64MB"
_COPY_BYTES: Final = 1 << 18
_MOST_WAIT: Final = 64

Counts = dict[str, int]
Finish = Callable[[Session, Part, Mapping[str, int]], None]
"""Given the open transaction, the part and its counts: writes the guarded progress as its last statement."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go.

    Args:
        columns: The columns of an encoded row, in its order.
        encoding: Of the file, for the ledger's text.
        raw_rows: Refused records whose text the ledger keeps.
    """

    tenant: str
    table: Table
    columns: tuple[str, ...]
    mode: Mode
    job_id: UUID
    encoding: Encoding
    lanes: int
    raw_rows: int


class LaneWriter:
    """Writes the parts of one lane on a connection of its own.

    Args:
        check: Called between the steps of long repairs; raises when the job is to stop.
    """

    def __init__(self, connection: Connection, sessions: Sessions, target: Target, check: Callable[[], None]) -> None:
        self._connection = connection
        self._sessions = sessions
        self._target = target
        self._check = check
        self._statements = _Statements(target)
        self._guess = _Guess(possible=target.mode is not Mode.UPDATE)

    def prepare(self) -> None:
        """Make the lane's stage, a temporary table; one that another job left on the connection goes."""
        with self._transaction() as session:
            # Has to be the first word on temporary tables in a session; in a later job it is the same value again.
            session.execute(text(f"SET temp_buffers = '{_TEMP_BUFFERS}'"))
            session.execute(text(f"DROP TABLE IF EXISTS pg_temp.{_STAGE}"))
            session.execute(text(self._statements.stage))
            self._guess.begin(empty=not session.execute(text(self._statements.exists)).scalar_one())

    def write(self, part: Part, finish: Finish) -> Counts:
        """Write one part, its refused records, books and checkpoint, and commit; all or nothing.

        Returns:
            What became of its records: ``COUNTERS``, and ``refused``: those refused before they reached Postgres.
        Raises:
            TransientError: Deadlocks or a lack of room that did not pass.
            JobError: The table refuses for another reason than its rows.
            FenceLost: From ``finish``.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._write_once(part, finish)
            except (psycopg2.Error, DBAPIError) as error:
                state = _sqlstate(error)
                if state not in _RETRIED:
                    raise _as_job_error(error) from error
                self._guess.was_wrong()
                if attempt == _ATTEMPTS - 1:
                    raise TransientError(
                        f"batch {part.batch.number} met other writers {_ATTEMPTS} times: {_message(error)}",
                        code=f"db.{state}",
                    ) from error
            time.sleep(_FIRST_WAIT_S * 2**attempt)
            self._check()
        raise AssertionError("the loop returns or raises")

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._sessions(bind=self._connection) as session, session.begin():
            yield session

    def _write_once(self, part: Part, finish: Finish) -> Counts:
        counts = dict.fromkeys((*COUNTERS, "refused"), 0)
        with self._transaction() as session:
            # The checkpoint travels with the rows, so a batch that a crash takes back is read again.
            session.execute(text(f"SET LOCAL synchronous_commit = off; SET LOCAL work_mem = '{_WORK_MEM}'"))
            refused = self._load(session, part, counts)
            faults = {**part.faults, **refused}
            ledger.add(session, self._target.tenant, self._target.job_id, self._failed(part.batch, faults))
            counts["read"] = part.count
            counts["refused"] = len(part.faults)
            counts["failed"] += len(part.faults)
            counts["skipped"] += part.blanks
            batch = part.batch
            imports.add_batch(
                session,
                self._target.job_id,
                batch=batch.number,
                lane=part.lane,
                lines=(batch.first_line, batch.last_line),
                byte_range=(batch.first_byte, batch.end_byte),
                counts=counts,
            )
            finish(session, part, counts)
        return counts

    def _load(self, session: Session, part: Part, counts: Counts) -> dict[int, Fault]:
        """Load the rows, by halves where Postgres refuses one; the refused ones by place."""
        if not part.rows:
            return {}
        if self._guess.is_fresh and part.distinct and self._copy_straight(session, part):
            counts["loaded"] += len(part.rows)
            return {}
        refused = self._merge_by_halves(session, part, counts)
        self._guess.merged(fresh=counts["loaded"] == len(part.rows))
        return refused

    def _copy_straight(self, session: Session, part: Part) -> bool:
        """Copy the rows into the table itself; whether it took them. It does not when it has one of the keys."""
        end = b"\t" + str(self._target.job_id).encode() + b"\n"
        try:
            with session.begin_nested():
                self._copy(session, self._statements.copy_straight, end.join(part.rows) + end)
        except psycopg2.Error as error:
            if not (_sqlstate(error) or "").startswith(_ROW_FAULTS):
                raise
            self._guess.was_wrong()
            return False
        return True

    def _merge_by_halves(self, session: Session, part: Part, counts: Counts) -> dict[int, Fault]:
        refused: dict[int, Fault] = {}
        waiting = [(part.rows, part.places)]
        while waiting:
            rows, places = waiting.pop()
            try:
                with session.begin_nested():
                    merged = self._merge(session, rows, places, distinct=part.distinct)
                    if len(rows) < len(part.rows):
                        session.execute(text(f"TRUNCATE pg_temp.{_STAGE}"))
            except (psycopg2.Error, DBAPIError) as error:
                if not (_sqlstate(error) or "").startswith(_ROW_FAULTS):
                    raise
                self._check()
                if len(rows) == 1:
                    refused[places[0]] = _refusal(error)
                    counts["failed"] += 1
                    continue
                half = len(rows) // 2
                waiting += [(rows[half:], places[half:]), (rows[:half], places[:half])]
                continue
            for name, count in merged.items():
                counts[name] += count
        return refused

    def _merge(self, session: Session, rows: Sequence[bytes], places: Sequence[int], *, distinct: bool) -> Counts:
        if distinct:
            self._copy(session, self._statements.copy, b"\n".join(rows))
        else:
            placed = b"\n".join(b"%b\t%d" % row for row in zip(rows, places, strict=True))
            self._copy(session, self._statements.copy_placed, placed)
        statement = self._statements.merge if distinct else self._statements.merge_last
        row = session.execute(text(statement), {"job": self._target.job_id}).one()
        staged = len(rows) if distinct else row.staged
        left = staged - row.inserted - row.updated - row.present
        skips = self._target.mode is not Mode.UPSERT
        return {
            "loaded": row.inserted,
            "updated": row.updated,
            "superseded": len(rows) - staged,
            "unchanged": row.present + (0 if skips else left),
            "skipped": left if skips else 0,
        }

    def _copy(self, session: Session, statement: str, data: bytes) -> None:
        cursor: Any = session.connection().connection.cursor()
        try:
            cursor.copy_expert(statement, io.BytesIO(data), _COPY_BYTES)
        finally:
            cursor.close()

    def _failed(self, batch: Batch, faults: Mapping[int, Fault]) -> Iterator[ledger.Entry]:
        kept = max(0, self._target.raw_rows - batch.refused_before)
        for number, place in enumerate(sorted(faults)):
            fault = faults[place]
            first_byte, end_byte = batch.bytes_of(place)
            raw, is_base64 = _raw_text(batch.raw(place), self._target.encoding) if number < kept else (None, False)
            yield ledger.Entry(
                line=batch.line_of(place),
                first_byte=first_byte,
                end_byte=end_byte,
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


class _Statements:
    """The statements of a target, put together once; names come from checked declarations, values are bound."""

    def __init__(self, target: Target) -> None:
        table = target.table
        names = [quoted(name) for name in target.columns]
        key = ", ".join(quoted(name) for name in table.key)
        types = {column.name: column.type.sql for column in table.columns}
        columns = ", ".join(names)
        declared = ", ".join(f"{quoted(name)} {types[name]}" for name in target.columns)
        self.stage = f"CREATE TEMP TABLE {_STAGE} ({declared}, {_PLACE} integer) ON COMMIT DELETE ROWS"
        form = "FROM STDIN (FORMAT text, NULL '')"
        relation = qualified(target.tenant, table.name)
        self.exists = f"SELECT EXISTS (SELECT FROM {relation})"
        self.copy_straight = f"COPY {relation} ({columns}, haulier_job_id) {form}"
        self.copy = f"COPY pg_temp.{_STAGE} ({columns}) {form}"
        self.copy_placed = f"COPY pg_temp.{_STAGE} ({columns}, {_PLACE}) {form}"
        last = f"SELECT DISTINCT ON ({key}) {columns} FROM pg_temp.{_STAGE} ORDER BY {key}, {_PLACE} DESC"
        staged = f"(SELECT count(*) FROM (SELECT DISTINCT {key} FROM pg_temp.{_STAGE}) AS keys)"
        everything = f"SELECT {columns} FROM pg_temp.{_STAGE} ORDER BY {key}"
        build = _update if target.mode is Mode.UPDATE else _upsert
        self.merge = build(target, everything, "0")
        self.merge_last = build(target, last, staged)


def _upsert(target: Target, source: str, staged: str) -> str:
    """INSERT … ON CONFLICT; counts what it inserted and updated."""
    table = target.table
    key = ", ".join(quoted(name) for name in table.key)
    columns = ", ".join(quoted(name) for name in target.columns)
    others = [quoted(name) for name in target.columns if name not in table.key]
    action = "DO NOTHING"
    if others and target.mode is Mode.UPSERT:
        sets = ", ".join(f"{name} = excluded.{name}" for name in others)
        mine, theirs = (", ".join(f"{side}.{name}" for name in others) for side in ("kept", "excluded"))
        action = (
            f"DO UPDATE SET {sets}, haulier_updated_at = now(), haulier_job_id = excluded.haulier_job_id "
            f"WHERE ({mine}) IS DISTINCT FROM ({theirs})"
        )
    return f"""
        WITH merged AS (
            INSERT INTO {qualified(target.tenant, table.name)} AS kept ({columns}, haulier_job_id)
            SELECT {columns}, CAST(:job AS uuid) FROM ({source}) AS fresh
            ON CONFLICT ({key}) {action}
            RETURNING (xmax = 0) AS inserted
        )
        SELECT count(*) FILTER (WHERE inserted) AS inserted, count(*) FILTER (WHERE NOT inserted) AS updated,
               0 AS present, {staged} AS staged
        FROM merged
        """


def _update(target: Target, source: str, staged: str) -> str:
    """UPDATE of what is there and differs; counts what it updated and what was there already."""
    table = target.table
    relation = qualified(target.tenant, table.name)
    others = [quoted(name) for name in target.columns if name not in table.key]
    same_key = " AND ".join(f"kept.{quoted(name)} = fresh.{quoted(name)}" for name in table.key)
    mine, theirs = (", ".join(f"{side}.{name}" for name in others) for side in ("kept", "fresh"))
    sets = "".join(f"{name} = fresh.{name}, " for name in others)
    differs = f"({mine}) IS DISTINCT FROM ({theirs})" if others else "false"
    return f"""
        WITH fresh AS MATERIALIZED ({source}),
        locked AS MATERIALIZED (
            SELECT {differs} AS differs FROM {relation} AS kept JOIN fresh ON {same_key}
        ),
        merged AS (
            UPDATE {relation} AS kept
            SET {sets}haulier_updated_at = now(), haulier_job_id = CAST(:job AS uuid)
            FROM fresh WHERE {same_key} AND {differs} RETURNING 1
        )
        SELECT 0 AS inserted, (SELECT count(*) FROM merged) AS updated,
               (SELECT count(*) FROM locked) - (SELECT count(*) FROM merged) AS present, {staged} AS staged
        """


def _raw_text(raw: bytes, encoding: Encoding) -> tuple[str | None, bool]:
    """A record as the ledger keeps it, and whether in base64."""
    if not raw or len(raw) > LEDGER_RAW_BYTES:
        return None, False
    try:
        decoded = raw.decode(encoding)
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        return base64.b64encode(raw).decode("ascii"), True
    return decoded.rstrip("\r\n"), False


def _sqlstate(error: psycopg2.Error | DBAPIError) -> str | None:
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    state: str | None = getattr(original, "pgcode", None)
    return state


def _message(error: psycopg2.Error | DBAPIError) -> str:
    """What Postgres said, in one line, without the statement."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    diagnosis = getattr(original, "diag", None)
    parts = [getattr(diagnosis, "message_primary", None) or str(original), getattr(diagnosis, "message_detail", None)]
    return "; ".join(part for part in parts if part).replace("\n", " ")[:500]


def _refusal(error: psycopg2.Error | DBAPIError) -> Fault:
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    return Fault(f"db.{_sqlstate(error)}", f"Postgres refused the row: {_message(error)}", original.diag.column_name)


def _as_job_error(error: psycopg2.Error | DBAPIError) -> Exception:
    """What a database error means for the job; a lost connection stays what it is, for the worker to judge."""
    state = _sqlstate(error)
    if state is None or state.startswith(("08", "57")):
        return error
    if state.startswith(_NO_ROOM):
        return TransientError(f"Postgres has no room: {_message(error)}", code=f"db.{state}")
    return JobError(f"Postgres refused to write to the table: {_message(error)}", code=f"db.{state}")
