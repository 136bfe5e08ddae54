"""What there is for the engine to do, by one statement that holds nothing: most looks find next to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app.persistence.admission import OVERDUE, WAITING
from app.persistence.families import PARENT_QUEUE, RETRYING
from app.persistence.prepared import Prepared


@dataclass(frozen=True, slots=True)
class Duties:
    """Which duties may find something.

    Args:
        rescue: A slot's lease lapsed; ``fire``: a schedule is overdue; ``end_overdue``: a deadline has passed.
        fold: An event has no number yet.
        stir: A family was touched or has a retry; ``begin``: one waits to start.
        admit: A job waits to be admitted; ``ring``: one is queued.
    """

    rescue: bool
    fire: bool
    end_overdue: bool
    fold: bool
    stir: bool
    begin: bool
    admit: bool
    ring: bool


_LOOK: Final = Prepared(
    f"""
    SELECT
        EXISTS (SELECT FROM workers WHERE lease_until < clock_timestamp()) AS rescue,
        EXISTS (SELECT FROM schedules WHERE NOT paused AND next_fire_at <= clock_timestamp()) AS fire,
        EXISTS (SELECT FROM jobs WHERE {OVERDUE}) AS end_overdue,
        EXISTS (SELECT FROM event_segments WHERE last_seq IS NULL) AS fold,
        EXISTS (SELECT FROM families WHERE stirred) OR EXISTS (SELECT FROM jobs WHERE {RETRYING}) AS stir,
        EXISTS (SELECT FROM jobs WHERE queue = '{PARENT_QUEUE}' AND state = 'open' AND NOT paused) AS begin,
        EXISTS (SELECT FROM jobs WHERE {WAITING}) AS admit,
        EXISTS (SELECT FROM jobs WHERE state = 'queued') AS ring
    """
)


def look(session: Session) -> Duties:
    """What may be done now."""
    [row] = _LOOK.execute(session, {})
    return Duties(**row._asdict())
