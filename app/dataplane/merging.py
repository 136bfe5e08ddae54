"""Encoded rows into a table, by COPY and one set-based statement; rows that Postgres refuses are found by halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane import images
from app.dataplane.faults import Fault
from app.dataplane.images import Keeping
from app.dataplane.plan import Mode
from app.dataplane.postgres_errors import POSTGRES_ERRORS, is_of_a_row, refusal
from app.dataplane.tables import qualified, quoted
from app.domain.tables import Table

_STAGE: Final = "haulier_stage"
_COMPANION_STAGE: Final = "haulier_companion_stage"
_PLACE: Final = "haulier_place"
_TEMP_BUFFERS: Final = "64MB"
_COPY_BYTES: Final = 1 << 18
BY_INDEX: Final = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
"""Before a statement that joins staged rows with the table's: to read all of it for each batch looks cheap to Postgres,
which knows nothing of the batches to come."""
_KEY_BYTES: Final = 36

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go.

    Args:
        columns: The columns of an encoded row, in its order.
        job_id: Who writes them; ``None`` for a request.
        revertible: What the rows were before is kept.
        null: How NULL is written in a row.
    """

    tenant: str
    table: Table
    columns: tuple[str, ...]
    mode: Mode
    job_id: UUID | None
    revertible: bool = False
    null: str = ""


def companion_counters(companions: Target) -> tuple[str, str]:
    """What the counts of new and changed companions are called."""
    return f"{companions.table.name}_loaded", f"{companions.table.name}_updated"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for COPY's text format, without line ends.

    Args:
        places: What each row is called by, ascending.
        companions: For each row the one beside it, its key first, or nothing; empty when there are no companions.
    """

    rows: Sequence[bytes]
    places: Sequence[int]
    companions: Sequence[bytes]

    def halves(self) -> tuple[Rows, Rows]:
        """The first half and the second."""
        half = len(self.rows) // 2
        return (
            Rows(self.rows[:half], self.places[:half], self.companions[:half]),
            Rows(self.rows[half:], self.places[half:], self.companions[half:]),
        )


class _File:
    """Rows as the file that COPY reads, put together some at a time."""

    def __init__(self, rows: Sequence[bytes], end: bytes) -> None:
        self._rows = rows
        self._end = end
        self._next = 0
        self._step = 1 + _COPY_BYTES * len(rows) // (1 + sum(map(len, rows)))

    def read(self, _size: int) -> bytes:
        """The next rows, nothing behind the last."""
        some = self._rows[self._next : self._next + self._step]
        self._next += self._step
        return self._end.join((*some, b""))


class Merger:
    """Writes rows on the connection that ``prepare`` was called on.

    Args:
        companions: Where the rows beside them go.
        check: Called before each statement that rows wait for; raises when the work is to stop.
    """

    def __init__(self, target: Target, companions: Target | None, check: Callable[[], None]) -> None:
        self._target = target
        self._companions = companions
        self._check = check
        self._statements = _Statements(target, _STAGE)
        self._beside = None if companions is None else _Statements(companions, _COMPANION_STAGE)

    def prepare(self, session: Session) -> None:
        """Make the stages, temporary tables; those that somebody else left on the connection go."""
        # Has to be the first word on temporary tables in a session; later it is the same value again.
        session.execute(text(f"SET temp_buffers = '{_TEMP_BUFFERS}'"))
        if self._target.revertible:
            keeps = images.keeping(session)
            self._statements = _Statements(self._target, _STAGE, keeps)
            if self._companions is not None:
                self._beside = _Statements(self._companions, _COMPANION_STAGE, keeps)
        for statements in filter(None, (self._statements, self._beside)):
            session.execute(text(statements.drop_stage))
            session.execute(text(statements.make_stage))

    def is_empty(self, session: Session) -> bool:
        """Whether the table has no row."""
        return not session.execute(text(self._statements.exists)).scalar_one()

    def copy_straight(self, session: Session, rows: Rows) -> Counts | None:
        """Copy rows of distinct keys into the table itself; ``None`` when it has one of the keys or refuses a row."""
        end = b"\t" + str(self._target.job_id or "").encode() + b"\n"
        try:
            with session.begin_nested():
                self._copy(session, self._statements.copy_straight, rows.rows, end)
                counts = self._merge_companions(session, rows)
        except POSTGRES_ERRORS as error:
            if not is_of_a_row(error):
                raise
            return None
        return {"loaded": len(rows.rows), **counts}

    def merge_by_halves(self, session: Session, whole: Rows, counts: Counts, *, distinct: bool) -> dict[int, Fault]:
        """Merge the rows, by halves where Postgres refuses one.

        Args:
            counts: What became of them is added to it.
            distinct: No key stands twice among them, for sure; else the last of each counts.
        Returns:
            The refused rows by place.
        """
        refused: dict[int, Fault] = {}
        waiting = [whole]
        while waiting:
            rows = waiting.pop()
            try:
                with session.begin_nested():
                    merged = self._merge(session, rows, distinct=distinct)
                    merged.update(self._merge_companions(session, rows))
                    if len(rows.rows) < len(whole.rows):
                        self._clear(session)
            except images.Raced:
                waiting.append(rows)
                continue
            except POSTGRES_ERRORS as error:
                if not is_of_a_row(error):
                    raise
                if len(rows.rows) == 1:
                    refused[rows.places[0]] = refusal(error)
                    counts["failed"] += 1
                    continue
                waiting += reversed(rows.halves())
                continue
            for name, count in merged.items():
                counts[name] += count
        return refused

    def _clear(self, session: Session) -> None:
        for statements in filter(None, (self._statements, self._beside)):
            session.execute(text(statements.clear_stage))

    def _merge(self, session: Session, rows: Rows, *, distinct: bool) -> Counts:
        if distinct:
            self._copy(session, self._statements.copy, rows.rows)
        else:
            placed = [b"%b\t%d" % row for row in zip(rows.rows, rows.places, strict=True)]
            self._copy(session, self._statements.copy_placed, placed)
        self._check()
        merge = self._statements.merge if distinct else self._statements.merge_last
        if merge.joins:
            session.execute(text(BY_INDEX))
        row = merge.run(session, self._target.job_id)
        staged = len(rows.rows) if distinct else row.staged
        left = staged - row.inserted - row.updated - row.present
        skips = self._target.mode is not Mode.UPSERT
        return {
            "loaded": row.inserted,
            "updated": row.updated,
            "superseded": len(rows.rows) - staged,
            "unchanged": row.present + (0 if skips else left),
            "skipped": left if skips else 0,
        }

    def _merge_companions(self, session: Session, rows: Rows) -> Counts:
        """Merge what stands beside the rows; of a companion that several rows bring the last counts."""
        if self._companions is None or self._beside is None:
            return {}
        last = {row[:_KEY_BYTES]: row for row in rows.companions if row}
        new, changed = companion_counters(self._companions)
        if not last:
            return {new: 0, changed: 0}
        self._copy(session, self._beside.copy, list(last.values()))
        self._check()
        merged = self._beside.merge.run(session, self._companions.job_id)
        return {new: merged.inserted, changed: merged.updated}

    def _copy(self, session: Session, statement: str, rows: Sequence[bytes], end: bytes = b"\n") -> None:
        self._check()
        cursor: Any = session.connection().connection.cursor()
        try:
            cursor.copy_expert(statement, _File(rows, end))
        finally:
            cursor.close()


@dataclass(frozen=True, slots=True)
class Merge:
    """The statement that merges a set of rows.

    Args:
        lock: Keeps what rows were before the merge changes them; empty when it needs not or does so itself.
        joins: Whether either looks the source's rows up in the table, and not by ``ON CONFLICT`` alone.
    """

    sql: str
    lock: str
    joins: bool

    def run(self, session: Session, job_id: UUID | None, **bound: Any) -> Any:
        """Merge; the counts.

        Args:
            bound: Values of the source.

        Raises:
            Raced: A row was changed that was not there to be kept.
        """
        bound["job"] = job_id
        locked = session.execute(text(self.lock), bound).scalar_one() if self.lock else None
        counts = session.execute(text(self.sql), bound).one()
        if locked is not None and counts.updated != locked:
            raise images.Raced
        return counts


class _Statements:
    """The statements of a target, put together once; names come from checked declarations, values are bound."""

    def __init__(self, target: Target, stage: str, keeps: Keeping = Keeping.NOT) -> None:
        table = target.table
        names = [quoted(name) for name in target.columns]
        key = ", ".join(quoted(name) for name in table.key)
        types = {column.name: column.type.sql for column in table.columns}
        columns = ", ".join(names)
        declared = ", ".join(f"{quoted(name)} {types[name]}" for name in target.columns)
        self.make_stage = f"CREATE TEMP TABLE {stage} ({declared}, {_PLACE} integer) ON COMMIT DELETE ROWS"
        self.drop_stage = f"DROP TABLE IF EXISTS pg_temp.{stage}"
        self.clear_stage = f"TRUNCATE pg_temp.{stage}"
        form = f"FROM STDIN (FORMAT text, NULL '{target.null}')"
        relation = qualified(target.tenant, table.name)
        self.exists = f"SELECT EXISTS (SELECT FROM {relation})"
        self.copy_straight = f"COPY {relation} ({columns}, haulier_job_id) {form}"
        self.copy = f"COPY pg_temp.{stage} ({columns}) {form}"
        self.copy_placed = f"COPY pg_temp.{stage} ({columns}, {_PLACE}) {form}"
        last = f"SELECT DISTINCT ON ({key}) {columns} FROM pg_temp.{stage} ORDER BY {key}, {_PLACE} DESC"
        staged = f"(SELECT count(*) FROM (SELECT DISTINCT {key} FROM pg_temp.{stage}) AS keys)"
        everything = f"SELECT {columns} FROM pg_temp.{stage} ORDER BY {key}"
        self.merge = merge_of(target, everything, "0", keeps)
        self.merge_last = merge_of(target, last, staged, keeps)


def merge_of(target: Target, source: str, staged: str = "0", keeps: Keeping = Keeping.NOT) -> Merge:
    """The statement that merges the rows of a SELECT of ``target.columns``, in which no key stands twice.

    Args:
        staged: SQL of a count that the merge gives back as ``staged``.
    """
    build = _update if target.mode is Mode.UPDATE else _upsert
    lock, differs = "", _differs(target, "fresh")
    if keeps is Keeping.LOCKED and differs and target.mode is not Mode.INSERT:
        lock = images.lock(target.table, qualified(target.tenant, target.table.name), source, differs)
    return Merge(build(target, source, staged, keeps), lock, joins=target.mode is Mode.UPDATE or lock != "")


def _differs(target: Target, theirs: str) -> str:
    """Whether a row differs from what came; empty when only its key came."""
    others = [quoted(name) for name in target.columns if name not in target.table.key]
    mine, came = (", ".join(f"{side}.{name}" for name in others) for side in ("kept", theirs))
    return f"({mine}) IS DISTINCT FROM ({came})" if others else ""


def _upsert(target: Target, source: str, staged: str, keeps: Keeping) -> str:
    """INSERT … ON CONFLICT; counts what it inserted and updated."""
    table = target.table
    key = ", ".join(quoted(name) for name in table.key)
    columns = ", ".join(quoted(name) for name in target.columns)
    others = [quoted(name) for name in target.columns if name not in table.key]
    action = "DO NOTHING"
    if others and target.mode is Mode.UPSERT:
        sets = ", ".join(f"{name} = excluded.{name}" for name in others)
        action = (
            f"DO UPDATE SET {sets}, haulier_updated_at = now(), haulier_job_id = excluded.haulier_job_id "
            f"WHERE {_differs(target, 'excluded')}"
        )
    return f"""
        WITH merged AS (
            INSERT INTO {qualified(target.tenant, table.name)} AS kept ({columns}, haulier_job_id)
            SELECT {columns}, CAST(:job AS uuid) FROM ({source}) AS fresh
            ON CONFLICT ({key}) {action}
            RETURNING (xmax = 0) AS inserted{images.returned(table, keeps)}
        ){images.kept(table, keeps)}
        SELECT count(*) FILTER (WHERE inserted) AS inserted, count(*) FILTER (WHERE NOT inserted) AS updated,
               0 AS present, {staged} AS staged
        FROM merged
        """


def _update(target: Target, source: str, staged: str, keeps: Keeping) -> str:
    """UPDATE of what is there and differs; counts what it updated and what was there already."""
    table = target.table
    relation = qualified(target.tenant, table.name)
    others = [quoted(name) for name in target.columns if name not in table.key]
    same_key = " AND ".join(f"kept.{quoted(name)} = fresh.{quoted(name)}" for name in table.key)
    sets = "".join(f"{name} = fresh.{name}, " for name in others)
    differs = _differs(target, "fresh") or "false"
    return f"""
        WITH fresh AS MATERIALIZED ({source}),
        locked AS MATERIALIZED (
            SELECT {differs} AS differs FROM {relation} AS kept JOIN fresh ON {same_key}
        ),
        merged AS (
            UPDATE {relation} AS kept
            SET {sets}haulier_updated_at = now(), haulier_job_id = CAST(:job AS uuid)
            FROM fresh WHERE {same_key} AND {differs} RETURNING false AS inserted{images.returned(table, keeps)}
        ){images.kept(table, keeps)}
        SELECT 0 AS inserted, (SELECT count(*) FROM merged) AS updated,
               (SELECT count(*) FROM locked) - (SELECT count(*) FROM merged) AS present, {staged} AS staged
        """
