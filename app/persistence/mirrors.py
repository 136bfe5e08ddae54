"""Statements on which tables have a search mirror, and on what was written to them and is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.persistence.job_rows import ENDED, STATE

_LOOKED_AT: Final = 1_000
"""Lines of changes that are looked at for one reading."""
_FREE: Final = (
    f"(c.job_id IS NULL OR NOT EXISTS (SELECT FROM jobs AS j WHERE j.id = c.job_id AND {STATE} NOT IN ({ENDED})))"
)
"""Whether a change is nobody's own: a job that goes on brings its rows to the mirror itself."""

_GIVEN_UP: Final = f"""(m.building IS NOT NULL AND NOT EXISTS (
    SELECT FROM jobs AS j WHERE j.id = m.building_job AND {STATE} NOT IN ({ENDED})
))"""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A table's mirror.

    Args:
        index: Where its documents are.
        is_made: The server has been told of the index.
        building: The index that a job of the id ``building_job`` fills, to replace it.
        retired: The index before, which is to go.
        is_dropped: The table is gone, and the index is to go.
    """

    tenant: str
    table: str
    index: str
    is_made: bool
    building: str | None
    building_job: UUID | None
    retired: str | None
    is_dropped: bool

    @property
    def indexes(self) -> tuple[str, ...]:
        """Where a change goes."""
        return (self.index,) if self.building is None else (self.index, self.building)


_SELECT: Final = """
    SELECT tenant, table_name AS table, index_name AS index, is_made, building, building_job, retired, is_dropped
    FROM mirrors
"""


def find(session: Session, tenant: str, table: str) -> Mirror | None:
    """The mirror of a table, or ``None``."""
    row = session.execute(
        text(f"{_SELECT} WHERE tenant = :tenant AND table_name = :table"), {"tenant": tenant, "table": table}
    ).one_or_none()
    return None if row is None else Mirror(**row._mapping)


def all_of(session: Session) -> list[Mirror]:
    """Every mirror of the installation."""
    return [Mirror(**row._mapping) for row in session.execute(text(f"{_SELECT} ORDER BY tenant, table_name"))]


def add(session: Session, tenant: str, table: str, index: str, *, rebuild_wanted: bool) -> None:
    """Give a table a mirror; the index of a table of that name that was dropped is to go."""
    session.execute(
        text(
            """
            INSERT INTO mirrors AS kept (tenant, table_name, index_name, rebuild_wanted)
            VALUES (:tenant, :table, :index, :rebuild)
            ON CONFLICT (tenant, table_name) DO UPDATE SET index_name = excluded.index_name, is_made = false,
                building = NULL, building_job = NULL, retired = kept.index_name, is_dropped = false,
                rebuild_wanted = excluded.rebuild_wanted
            """
        ),
        {"tenant": tenant, "table": table, "index": index, "rebuild": rebuild_wanted},
    )


def note_made(session: Session, mirror: Mirror) -> None:
    """Note that the server has the index."""
    session.execute(
        text("UPDATE mirrors SET is_made = true WHERE tenant = :tenant AND index_name = :index"),
        {"tenant": mirror.tenant, "index": mirror.index},
    )


def note_removed(session: Session, mirror: Mirror) -> None:
    """Note that the retired index is gone."""
    session.execute(
        text("UPDATE mirrors SET retired = NULL WHERE tenant = :tenant AND retired = :retired"),
        {"tenant": mirror.tenant, "retired": mirror.retired},
    )


def begin_building(session: Session, job: Job, table: str, index: str) -> bool:
    """Have every change written to another index too; whether no other job that is not over builds one."""
    row = session.execute(
        text(
            f"""
            UPDATE mirrors AS m SET building = :index, building_job = :job_id, rebuild_wanted = false
            WHERE tenant = :tenant AND table_name = :table AND NOT EXISTS (
                SELECT FROM jobs AS j WHERE j.id = m.building_job AND j.id <> :job_id AND {STATE} NOT IN ({ENDED})
            ) RETURNING building
            """
        ),
        {"tenant": job.tenant, "table": table, "index": index, "job_id": job.id},
    ).one_or_none()
    return row is not None


def end_building(session: Session, tenant: str, table: str, index: str) -> None:
    """Put the index that was built in the place of the other, which is retired."""
    session.execute(
        text(
            """
            UPDATE mirrors SET retired = CASE WHEN is_made THEN index_name ELSE retired END, index_name = building,
                is_made = true, building = NULL, building_job = NULL
            WHERE tenant = :tenant AND table_name = :table AND building = :index
            """
        ),
        {"tenant": tenant, "table": table, "index": index},
    )


def give_up_building(session: Session, tenant: str, table: str) -> None:
    """Retire an index whose job ended without putting it in place, once the one before is gone."""
    session.execute(
        text(
            f"""
            UPDATE mirrors AS m SET retired = building, building = NULL, building_job = NULL
            WHERE tenant = :tenant AND table_name = :table AND retired IS NULL AND {_GIVEN_UP}
            """
        ),
        {"tenant": tenant, "table": table},
    )


def drop(session: Session, tenant: str, table: str) -> None:
    """Note that a table was dropped; what was to be written is forgotten."""
    for statement in (
        "UPDATE mirrors SET is_dropped = true WHERE tenant = :tenant AND table_name = :table",
        "DELETE FROM mirror_changes WHERE tenant = :tenant AND table_name = :table",
    ):
        session.execute(text(statement), {"tenant": tenant, "table": table})


def forget(session: Session, mirror: Mirror) -> None:
    """Forget a mirror and what was to be written to it, unless the table was made anew and has another."""
    session.execute(
        text(
            """
            WITH gone AS (
                DELETE FROM mirrors WHERE tenant = :tenant AND index_name = :index RETURNING tenant, table_name
            )
            DELETE FROM mirror_changes AS c USING gone
            WHERE c.tenant = gone.tenant AND c.table_name = gone.table_name
            """
        ),
        {"tenant": mirror.tenant, "index": mirror.index},
    )


def begin_reading(session: Session, tenant: str, table: str) -> int:
    """The version of the rows that this transaction is going to read of a table.

    Whoever gets a higher one reads later, for only one transaction reads at a time: so of two documents of one row the
    one with the higher version is never the older.
    """
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"),
        {"subject": f"haulier.mirror {tenant} {table}"},
    )
    version: int = session.execute(text("SELECT nextval('mirror_versions')")).scalar_one()
    return version


def changes(session: Session, tenant: str, table: str, *, of: UUID | None, most_rows: int) -> list[int]:
    """The oldest changes that are to be written, of about so many rows.

    Args:
        of: The job whose changes; ``None`` for those of requests and of jobs that are over.
    """
    rows = session.execute(
        text(
            f"""
            SELECT id FROM (
                SELECT id, sum(rows) OVER (ORDER BY id) - rows AS before FROM (
                    SELECT id, rows FROM mirror_changes AS c
                    WHERE tenant = :tenant AND table_name = :table AND {_FREE if of is None else "c.job_id = :job_id"}
                    ORDER BY id LIMIT {_LOOKED_AT}
                ) AS oldest
            ) AS counted WHERE before < :most
            """
        ),
        {"tenant": tenant, "table": table, "job_id": of, "most": most_rows},
    )
    return list(rows.scalars())


def settle(session: Session, changes: list[int]) -> int:
    """Forget changes that are in the mirror; how many rows they were, without those that somebody else settled."""
    rows = session.execute(
        text(
            "WITH gone AS (DELETE FROM mirror_changes WHERE id = ANY(:ids) RETURNING rows) "
            "SELECT coalesce(sum(rows), 0)::bigint FROM gone"
        ),
        {"ids": changes},
    )
    return int(rows.scalar_one())


def waiting(session: Session, tenant: str, table: str, job_id: UUID) -> int:
    """How many rows that a job wrote are not in the mirror yet."""
    rows = session.execute(
        text(
            "SELECT coalesce(sum(rows), 0)::bigint FROM mirror_changes "
            "WHERE tenant = :tenant AND table_name = :table AND job_id = :job_id"
        ),
        {"tenant": tenant, "table": table, "job_id": job_id},
    )
    return int(rows.scalar_one())


def with_work(session: Session) -> list[tuple[str, str, bool]]:
    """Tenant and name of every table with something to do for its mirror, and whether that is to be built anew."""
    rows = session.execute(
        text(
            f"""
            SELECT tenant, table_name, rebuild_wanted AND NOT is_dropped AS rebuild FROM mirrors AS m
            WHERE rebuild_wanted OR is_dropped OR retired IS NOT NULL OR {_GIVEN_UP} OR EXISTS (
                SELECT FROM mirror_changes AS c
                WHERE c.tenant = m.tenant AND c.table_name = m.table_name AND {_FREE}
            ) ORDER BY tenant, table_name
            """
        )
    )
    return [(row.tenant, row.table_name, row.rebuild) for row in rows]
