"""The leader's row: one engine leads at a time, for a term in database time, and proves it in every transaction."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

_LEAD: Final = text(
    """
    INSERT INTO leaders AS l (duty, holder, term, until)
    VALUES (:duty, :holder, 1, clock_timestamp() + make_interval(secs => :term_s))
    ON CONFLICT (duty) DO UPDATE
        SET term = CASE WHEN l.holder = excluded.holder THEN l.term ELSE l.term + 1 END,
            holder = excluded.holder, until = excluded.until
        WHERE l.holder = excluded.holder OR l.until < clock_timestamp()
    RETURNING term
    """
)


def lead(session: Session, duty: str, holder: UUID, *, term_s: float) -> int | None:
    """Take or renew the lead; the number of the term, or ``None`` while another holds it."""
    row = session.execute(_LEAD, {"duty": duty, "holder": holder, "term_s": term_s}).one_or_none()
    return None if row is None else int(row.term)


def leads(session: Session, duty: str, holder: UUID, term: int) -> bool:
    """Whether the term still runs; holds the row, so that nobody takes over before this transaction ends."""
    row = session.execute(
        text(
            """
            SELECT FROM leaders WHERE duty = :duty AND holder = :holder AND term = :term AND until > clock_timestamp()
            FOR SHARE
            """
        ),
        {"duty": duty, "holder": holder, "term": term},
    ).one_or_none()
    return row is not None


def resign(session: Session, duty: str, holder: UUID) -> None:
    """Let the next engine lead at once."""
    session.execute(
        text("UPDATE leaders SET until = clock_timestamp() WHERE duty = :duty AND holder = :holder"),
        {"duty": duty, "holder": holder},
    )
