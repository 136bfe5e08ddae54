"""The leader's row: one engine leads at a time, for a term in database time, and proves it in every transaction."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.persistence.prepared import Prepared

_FIRST: Final = text(
    """
    INSERT INTO leaders (duty, holder, term, until)
    VALUES (:duty, :holder, 1, clock_timestamp() + make_interval(secs => :term_s))
    ON CONFLICT (duty) DO NOTHING RETURNING term
    """
)
# SKIP LOCKED: a leader that was stopped inside a transaction must not stop those who wait for its term to end.
_LEAD: Final = text(
    """
    UPDATE leaders SET term = CASE WHEN holder = :holder THEN term ELSE term + 1 END, holder = :holder,
        until = clock_timestamp() + make_interval(secs => :term_s)
    WHERE duty = (
        SELECT duty FROM leaders WHERE duty = :duty AND (holder = :holder OR until < clock_timestamp())
        FOR UPDATE SKIP LOCKED
    )
    RETURNING term
    """
)


def application_name(holder: UUID) -> str:
    """What every connection of an engine calls itself, so that its successor finds them."""
    return f"haulier engine {holder}"


def end_lapsed(session: Session, duty: str) -> int:
    """End the database sessions of a leader whose term is over; how many there were.

    One that was stopped inside a transaction holds the leader's row, and nobody could take over.
    """
    rows = session.execute(
        text(
            """
            SELECT pg_terminate_backend(a.pid) FROM leaders AS l
            JOIN pg_stat_activity AS a ON a.application_name = 'haulier engine ' || l.holder
            WHERE l.duty = :duty AND l.until < clock_timestamp() AND a.pid <> pg_backend_pid()
            AND a.usename = current_user
            """
        ),
        {"duty": duty},
    )
    return len(rows.all())


def lead(session: Session, duty: str, holder: UUID, *, term_s: float) -> int | None:
    """Take or renew the lead; the number of the term, or ``None`` while another holds it."""
    bound = {"duty": duty, "holder": holder, "term_s": term_s}
    row = session.execute(_LEAD, bound).one_or_none() or session.execute(_FIRST, bound).one_or_none()
    return None if row is None else int(row.term)


_LEADS: Final = Prepared(
    """
    SELECT FROM leaders WHERE duty = :duty AND holder = :holder AND term = :term AND until > clock_timestamp() FOR SHARE
    """
)


def leads(session: Session, duty: str, holder: UUID, term: int) -> bool:
    """Whether the term still runs; holds the row, so that nobody takes over before this transaction ends."""
    return bool(_LEADS.execute(session, {"duty": duty, "holder": holder, "term": term}))


def resign(session: Session, duty: str, holder: UUID) -> None:
    """Let the next engine lead at once."""
    session.execute(
        text("UPDATE leaders SET until = clock_timestamp() WHERE duty = :duty AND holder = :holder"),
        {"duty": duty, "holder": holder},
    )
