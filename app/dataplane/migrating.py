"""Rows of one table into another, a batch a transaction, and the proof that they are the same there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane import images
from app.dataplane.context import TableContext
from app.dataplane.images import Keeping
from app.dataplane.merging import Target, merge_of
from app.dataplane.plan import Mode
from app.dataplane.tables import qualified, quoted
from app.dataplane.walking import Key, Walk, same_key, walk_on
from app.domain.errors import TransientError
from app.domain.tables import Table
from app.persistence import jobs

COUNTERS: Final = ("read", "loaded", "updated", "unchanged")


@dataclass(frozen=True, slots=True)
class Migration:
    """What goes where.

    Args:
        walk: The rows.
        columns: The source's column to the target's, each of which takes all of its values; the columns of the
            source's key go to those of the target's.
        revertible: What the target's rows were before is kept.
    """

    walk: Walk
    target: Table
    columns: Mapping[str, str]
    batch_rows: int
    revertible: bool

    def selected(self) -> list[str]:
        """The target's columns out of a source's row, in SQL."""
        types = {column.name: column.type.sql for column in self.target.columns}
        return [
            f"CAST(m.{quoted(source)} AS {types[target]}) AS {quoted(target)}"
            for source, target in self.columns.items()
        ]


@dataclass(frozen=True, slots=True)
class Proof:
    """Rows of the source that were meant and rows of the target with their keys, each counted and summed up."""

    source_rows: int
    target_rows: int
    source_checksum: str
    target_checksum: str

    @property
    def holds(self) -> bool:
        """Whether both are the same."""
        return (self.source_rows, self.source_checksum) == (self.target_rows, self.target_checksum)


def migrate(context: TableContext, work: Migration) -> tuple[dict[str, int], Proof]:
    """Copy the rows and compare both sides in one snapshot; the counts of all runs of the job, and the proof.

    Raises:
        TransientError: ``migrate.differs``: somebody changed rows meanwhile; the next attempt copies them again.
        JobError: The target refuses a row.
        FenceLost: Another worker has the job.
    """
    target = Target(
        context.job.tenant, work.target, tuple(work.columns.values()), Mode.UPSERT, context.id, work.revertible
    )
    now = walk_on(context, lambda after: _batch(context, work, target, after))
    with context.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        proof = _prove(session, work)
    if not proof.holds:
        _begin_anew(context)
        raise TransientError(
            f"{proof.source_rows} rows of {work.walk.table.name} and {proof.target_rows} of {work.target.name} differ",
            code="migrate.differs",
            data={"source_checksum": proof.source_checksum, "target_checksum": proof.target_checksum},
        )
    return {name: now.counters.get(name, 0) for name in COUNTERS}, proof


def _batch(context: TableContext, work: Migration, target: Target, after: Key | None) -> Key | None:
    walk = work.walk
    with context.sessions.begin() as session:
        if work.revertible:
            # What is kept and what is written are the same rows, whatever others change: they or this begins again.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        ahead = walk.page(walk.key_columns(), after=after, limit=work.batch_rows)
        last = session.execute(text(f"SELECT {walk.last(f'({ahead.sql}) AS ahead')}"), ahead.parameters).scalar_one()
        if last is None:
            return None
        page = walk.page(work.selected(), after=after, upto=tuple(last))
        keeps = images.keeping(session) if work.revertible else Keeping.NOT
        merge = merge_of(target, page.sql, f"(SELECT count(*) FROM ({page.sql}) AS page)", keeps)
        merged = merge.run(session, context.id, **page.parameters)
        counts = {
            "read": merged.staged,
            "loaded": merged.inserted,
            "updated": merged.updated,
            "unchanged": merged.staged - merged.inserted - merged.updated,
        }
        signals = jobs.advance(
            session,
            context.job,
            rows=merged.staged,
            counters=counts,
            stage="copying",
            checkpoint={"walk": last},
        )
    context.heed(signals)
    return tuple(last)


def _prove(session: Session, work: Migration) -> Proof:
    rows = work.walk.page(work.selected(), after=None)
    names = [quoted(name) for name in work.columns.values()]
    # Equal values have equal hashes, however they are written: 1.0 and 1.00 are one number.
    fresh, kept = (
        f"hash_record_extended(ROW({', '.join(f'{side}.{name}' for name in names)}), 0)" for side in ("fresh", "kept")
    )
    there = f"kept.{quoted(work.target.key[0])} IS NOT NULL"
    found: Any = session.execute(
        text(
            f"""
            WITH fresh AS ({rows.sql})
            SELECT count(*) AS source_rows, count(*) FILTER (WHERE {there}) AS target_rows,
                   coalesce(sum({fresh}), 0)::text AS source_checksum,
                   coalesce(sum({kept}) FILTER (WHERE {there}), 0)::text AS target_checksum
            FROM fresh LEFT JOIN {qualified(work.walk.tenant, work.target.name)} AS kept
                ON {same_key(work.target, "kept", "fresh")}
            """
        ),
        rows.parameters,
    ).one()
    return Proof(**found._mapping)


def _begin_anew(context: TableContext) -> None:
    with context.sessions.begin() as session:
        signals = jobs.advance(session, context.job, stage="differs", checkpoint={"walk": None})
    context.heed(signals)
