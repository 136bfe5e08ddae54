"""A revert: rows become again what they were before a job wrote them, but for those that others changed since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.dataplane import books
from app.dataplane.context import TableContext
from app.dataplane.images import key_of
from app.dataplane.postgres_errors import retried
from app.dataplane.tables import qualified, quoted
from app.domain.job_types import Result
from app.domain.jobs import Job, Outcome, Signals
from app.domain.tables import SYSTEM_COLUMNS, ColumnType, Table
from app.persistence import before_images, jobs, ledger

COUNTERS: Final = ("read", "restored", "deleted", "gone", "failed")
"""Rows with an image: given back, removed because the job had made them, gone already, or changed by others since."""
_ROWS_A_BATCH: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a revert is.

    Args:
        table: Of the last image that was looked at; ``key`` its key; ``None`` before the first.
        number: Images looked at before.
    """

    table: str = ""
    key: tuple[str, ...] | None = None
    number: int = 0

    @classmethod
    def of(cls, job: Job) -> _Place:
        kept = (job.checkpoint or {}).get("revert")
        return cls(kept["table"], kept["key"] and tuple(kept["key"]), kept["number"]) if kept else cls()

    def to_checkpoint(self) -> dict[str, Any]:
        return {"revert": {"table": self.table, "key": self.key, "number": self.number}}


def revert(context: TableContext, source: Job, tables: Sequence[Table]) -> Result:
    """Give back what ``source`` wrote; a killed revert goes on behind its last batch.

    Args:
        tables: Where its rows stand, in the order of names.
    Raises:
        JobError: A table refuses the rows, or the books do not balance.
        TransientError: Another attempt may do better.
        FenceLost: Another worker has the job.
    """
    place = _Place.of(context.job)
    if context.job.checkpoint is None:
        _begin(context, source)
    for table in tables:
        if table.name < place.table:
            continue
        if table.name > place.table:
            place = _Place(table.name, None, place.number)
        work = _Table(context, source.id, table)
        while (following := work.give_back(place)) is not None:
            place = following
            context.check()
    return _close(context, source)


def _begin(context: TableContext, source: Job) -> None:
    with context.sessions.begin() as session:
        signals = jobs.advance(
            session,
            context.job,
            rows_total=sum(before_images.tables(session, source.id).values()),
            stage="reverting",
            counters=dict.fromkeys(COUNTERS, 0),
            checkpoint=_Place().to_checkpoint(),
        )
    context.heed(signals)


class _Table:
    """The rows of one table."""

    def __init__(self, context: TableContext, source: UUID, table: Table) -> None:
        self._context = context
        self._source = source
        self._table = table
        self._statement = text(_statement(context.job.tenant, table))

    def give_back(self, place: _Place) -> _Place | None:
        """Give back a batch behind ``place``; where it ended, ``None`` when there was none."""
        return retried(
            lambda: self._once(place), again=self._context.check, what=f"the rows behind number {place.number}"
        )

    def _once(self, place: _Place) -> _Place | None:
        context = self._context
        with context.sessions.begin() as session:
            before_images.lock(session, self._source)
            rows = session.execute(
                self._statement,
                {
                    "source": self._source,
                    "table": self._table.name,
                    "after": None if place.key is None else list(place.key),
                    "limit": _ROWS_A_BATCH,
                },
            ).all()
            if not rows:
                return None
            following = _Place(self._table.name, tuple(rows[-1].key), place.number + len(rows))
            signals = self._enter(session, rows, place, following)
        context.heed(signals)
        return following

    def _enter(self, session: Session, rows: Sequence[Row[Any]], place: _Place, following: _Place) -> Signals:
        """The ledger, and last the guarded progress."""
        job = self._context.job
        fates = Counter(row.fate for row in rows)
        entries = [
            self._entry(place.number + number, row) for number, row in enumerate(rows, start=1) if row.fate == "failed"
        ]
        ledger.add(session, job.tenant, job.id, entries)
        return jobs.advance(
            session,
            job,
            rows=len(rows),
            failed=len(entries),
            counters={"read": len(rows), **fates},
            checkpoint=following.to_checkpoint(),
        )

    def _entry(self, number: int, row: Row[Any]) -> ledger.Entry:
        key = dict(zip(self._table.key, row.key, strict=True))
        return ledger.Entry(
            line=number,
            first_byte=0,
            end_byte=0,
            raw=json.dumps({"table": self._table.name, "key": key}, ensure_ascii=False),
            raw_is_base64=False,
            field=None,
            code="revert.moved_on",
            message=f"row {', '.join(f'{name} {value}' for name, value in key.items())} {_since(row)}"[:2_000],
        )


def _since(row: Row[Any]) -> str:
    """What others did to a row that is not given back."""
    if row.is_deleted:
        # One that was written while the statement ran stood in its way, unseen.
        return "was written again since" + ("" if row.is_gone else f" by {_who(row.holder)}")
    return "was deleted since" if row.is_gone else f"was changed since by {_who(row.holder)}"


def _who(job_id: UUID | None) -> str:
    return "a request" if job_id is None else f"job {job_id}"


def _statement(tenant: str, table: Table) -> str:
    """Give back one batch, whose images go; those of rows that others changed stay.

    ``held`` locks the rows as they are now, not as they were when the statement began. Rows that the job deleted are
    put back where their keys are free.
    """
    relation = qualified(tenant, table.name)
    types = {column.name: column.type.sql for column in table.columns}
    names = [quoted(name) for name in table.column_names if name not in table.key]
    names += SYSTEM_COLUMNS
    every = [*(quoted(name) for name in table.key), *names]
    typed = "".join(
        f", CAST(key[{number}] AS {types[name]}) AS haulier_k{number}" for number, name in enumerate(table.key, start=1)
    )
    same = " AND ".join(
        f"kept.{quoted(name)} = page.haulier_k{number}" for number, name in enumerate(table.key, start=1)
    )
    return f"""
        WITH page AS MATERIALIZED (
            SELECT key, image, is_deleted{typed} FROM before_images
            WHERE job_id = :source AND table_name = :table
                AND (CAST(:after AS text[]) IS NULL OR key > CAST(:after AS text[]))
            ORDER BY key LIMIT :limit
        ), held AS MATERIALIZED (
            SELECT page.key, kept.haulier_job_id AS holder FROM {relation} AS kept JOIN page ON {same}
            ORDER BY {", ".join(f"kept.{quoted(name)}" for name in table.key)} FOR UPDATE OF kept
        ), deleted AS (
            DELETE FROM {relation} AS kept USING page JOIN held USING (key)
            WHERE {same} AND held.holder = :source AND page.image IS NULL RETURNING page.key
        ), restored AS (
            UPDATE {relation} AS kept SET ({", ".join(names)}) = (
                SELECT {", ".join(_restored(table, name, f"kept.{name}") for name in names)}
                FROM jsonb_populate_record(kept, page.image) AS past
            )
            FROM page JOIN held USING (key)
            WHERE {same} AND held.holder = :source AND page.image IS NOT NULL AND NOT page.is_deleted
            RETURNING page.key
        ), put_back AS (
            INSERT INTO {relation} AS kept ({", ".join(every)})
            SELECT {", ".join(_restored(table, name, "NULL") for name in every)}
            FROM page CROSS JOIN LATERAL jsonb_populate_record(CAST(NULL AS {relation}), page.image) AS past
            WHERE page.is_deleted
            ORDER BY {", ".join(f"page.haulier_k{number}" for number in range(1, len(table.key) + 1))}
            ON CONFLICT DO NOTHING RETURNING {key_of(table, "kept")} AS key
        ), fates AS MATERIALIZED (
            SELECT page.key, held.holder, held.key IS NULL AS is_gone, page.is_deleted, CASE
                WHEN deleted.key IS NOT NULL THEN 'deleted'
                WHEN restored.key IS NOT NULL OR put_back.key IS NOT NULL THEN 'restored'
                WHEN held.key IS NULL AND page.image IS NULL THEN 'gone'
                ELSE 'failed' END AS fate
            FROM page LEFT JOIN held USING (key) LEFT JOIN deleted USING (key) LEFT JOIN restored USING (key)
                LEFT JOIN put_back USING (key)
        ), done AS (
            DELETE FROM before_images AS b USING fates
            WHERE b.job_id = :source AND b.table_name = :table AND b.key = fates.key AND fates.fate <> 'failed'
        )
        SELECT key, holder, is_gone, is_deleted, fate FROM fates ORDER BY key
        """


def _restored(table: Table, name: str, later: str) -> str:
    """A column as the image has it; ``later`` of JSON when it was declared later."""
    column = table.column(name.strip('"'))
    if column is None or column.type is not ColumnType.JSON:
        return f"past.{name}"
    return f"CASE WHEN page.image ? '{column.name}' THEN CAST(page.image ->> '{column.name}' AS jsonb) ELSE {later} END"


def _close(context: TableContext, source: Job) -> Result:
    """Check the books and make the result of them."""
    with context.sessions.begin() as session:
        now = jobs.get(session, context.job.tenant, context.id)
    balanced = books.of_counters(now, COUNTERS, rows="given back")
    outcome = Outcome.PARTIAL if balanced["failed"] else Outcome.SUCCESS if balanced["read"] else Outcome.EMPTY
    return Result(
        data={"job": str(source.id), "books": balanced},
        message=f"reverted {balanced['read'] - balanced['failed']} of {balanced['read']} rows of job {source.id}",
        outcome=outcome,
    )
