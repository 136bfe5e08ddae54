"""The use case of retention: room is made for jobs to come, and what is old enough goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.exc import OperationalError

from app.domain.ports import Clock
from app.persistence import partitions
from app.persistence.partitions import Period
from app.persistence.sessions import Sessions

log = logging.getLogger(__name__)


class Retention:
    """Keeps the partitions.

    Args:
        days: How long a job that ended is kept; 0 keeps it for ever.
    """

    def __init__(self, sessions: Sessions, clock: Clock, *, days: int) -> None:
        self._sessions = sessions
        self._clock = clock
        self._days = days

    def prepare(self) -> list[Period]:
        """Make the partitions that will be needed; those that were missing."""
        with self._sessions.begin() as session:
            return partitions.prepare(session, now=self._clock.now())

    def drop_old(self) -> list[Period]:
        """Drop what is past its time; which periods. One table at a time, so that no lock waits for another.

        What is in use for longer than two seconds is left for the next time.
        """
        if not self._days:
            return []
        with self._sessions.begin() as session:
            old = partitions.over(session, before=self._clock.now() - timedelta(days=self._days))
        dropped = [period for period in old if self._drop(period, partitions.TABLES)]
        with self._sessions.begin() as session:
            unused = partitions.over_segments(session)
        for period in unused:
            self._drop(period, [partitions.SEGMENTS])
        return dropped

    def _drop(self, period: Period, tables: Sequence[str]) -> bool:
        try:
            for table in tables:
                with self._sessions.begin() as session:
                    partitions.drop(session, table, period)
        except OperationalError as error:
            log.warning("partitions.in_use", extra={"period": period.suffix, "error": str(error)})
            return False
        return True
