"""Statements on the values that pickers offer, and on which rows they have not been gathered from yet."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.texts import like_pattern
from app.persistence.job_rows import ENDED


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows of a table that were written since their values were gathered.

    Args:
        job_id: Who wrote them; ``None`` when they are in already.
        whole: Whether the whole table must be read: rows went, or nobody knows which were written.
        over: Whether no more of them will come.
    """

    number: int
    job_id: UUID | None
    whole: bool
    over: bool


def touch(session: Session, tenant: str, table: str, job_id: UUID | None, *, whole: bool = False) -> None:
    """Note that rows of a table are written, or about to be; ``whole`` and no job as ``Touched`` tells.

    Each has a line of its own: who gathers takes those it sees, and never one of a transaction that goes on.
    """
    session.execute(
        text("INSERT INTO picker_touches (tenant, table_name, job_id, whole) VALUES (:tenant, :table, :job, :whole)"),
        {"tenant": tenant, "table": table, "job": job_id, "whole": whole or job_id is None},
    )


def take_touched(session: Session, tenant: str, table: str) -> list[Touched]:
    """What is to be gathered, held until the transaction ends: whoever else gathers waits."""
    rows = session.execute(
        text(
            f"""
            SELECT t.number, t.job_id, t.whole, coalesce(j.state IN ({ENDED}), true) AS over
            FROM picker_touches AS t LEFT JOIN jobs AS j ON j.id = t.job_id
            WHERE t.tenant = :tenant AND t.table_name = :table ORDER BY t.number FOR UPDATE OF t
            """
        ),
        {"tenant": tenant, "table": table},
    )
    return [Touched(row.number, row.job_id, row.whole, row.over) for row in rows]


def settle(session: Session, numbers: list[int]) -> None:
    """Forget touches whose rows are gathered."""
    session.execute(text("DELETE FROM picker_touches WHERE number = ANY(:numbers)"), {"numbers": numbers})


def touched_tables(session: Session) -> list[tuple[str, str]]:
    """Tenant and name of every table of which something is to be gathered."""
    rows = session.execute(text("SELECT DISTINCT tenant, table_name FROM picker_touches ORDER BY 1, 2"))
    return [(row.tenant, row.table_name) for row in rows]


def forget(session: Session, tenant: str, table: str, *, touches_too: bool = False) -> None:
    """Drop the values of a table."""
    for kept in ("picker_values", *(("picker_touches",) if touches_too else ())):
        session.execute(
            text(f"DELETE FROM {kept} WHERE tenant = :tenant AND table_name = :table"),
            {"tenant": tenant, "table": table},
        )


def find(session: Session, tenant: str, table: str, column: str, *, search: str | None, limit: int) -> list[str]:
    """Values of a column in order, those that hold ``search`` (any case) when given."""
    rows = session.execute(
        text(
            """
            SELECT value FROM picker_values
            WHERE tenant = :tenant AND table_name = :table AND column_name = :column
            AND (CAST(:pattern AS text) IS NULL OR value ILIKE :pattern) ORDER BY value LIMIT :limit
            """
        ),
        {
            "tenant": tenant,
            "table": table,
            "column": column,
            "pattern": None if search is None else like_pattern(search),
            "limit": limit,
        },
    )
    return [row.value for row in rows]
