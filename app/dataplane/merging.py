"""Encoded rows into a table, by COPY and one set-based statement; rows that Postgres refuses are found by halving."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.faults import Fault
from app.dataplane.plan import Mode
from app.dataplane.postgres_errors import POSTGRES_ERRORS, is_of_a_row, refusal
from app.dataplane.tables import qualified, quoted
from app.domain.tables import Table

_STAGE: Final = "haulier_stage"
_COMPANION_STAGE: Final = "haulier_companion_stage"
_PLACE: Final = "haulier_place"
_TEMP_BUFFERS: Final = "64MB"
_COPY_BYTES: Final = 1 << 18
_KEY_BYTES: Final = 36

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go.

    Args:
        columns: The columns of an encoded row, in its order.
        job_id: Who writes them; ``None`` for a request.
        null: How NULL is written in a row.
    """

    tenant: str
    table: Table
    columns: tuple[str, ...]
    mode: Mode
    job_id: UUID | None
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
                self._copy(session, self._statements.copy_straight, end.join(rows.rows) + end)
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
            self._copy(session, self._statements.copy, b"\n".join(rows.rows))
        else:
            placed = b"\n".join(b"%b\t%d" % row for row in zip(rows.rows, rows.places, strict=True))
            self._copy(session, self._statements.copy_placed, placed)
        self._check()
        statement = self._statements.merge if distinct else self._statements.merge_last
        row = session.execute(text(statement), {"job": self._target.job_id}).one()
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
        self._copy(session, self._beside.copy, b"\n".join(last.values()))
        self._check()
        merged = session.execute(text(self._beside.merge), {"job": self._companions.job_id}).one()
        return {new: merged.inserted, changed: merged.updated}

    def _copy(self, session: Session, statement: str, data: bytes) -> None:
        self._check()
        cursor: Any = session.connection().connection.cursor()
        try:
            cursor.copy_expert(statement, io.BytesIO(data), _COPY_BYTES)
        finally:
            cursor.close()


class _Statements:
    """The statements of a target, put together once; names come from checked declarations, values are bound."""

    def __init__(self, target: Target, stage: str) -> None:
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
