"""Leadership: of the engines that run, one works; the others wait for its term to end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.persistence import leaders
from app.persistence.sessions import Sessions, SingleStatements

log = logging.getLogger(__name__)

DUTY: Final = "engine"


class LeadLost(Exception):  # noqa: N818 - it is a signal, not an error
    """Another engine leads; what was begun is rolled back."""


class Leader:
    """Holds the lead for terms of ``term_s`` seconds of database time, renewed at a third of it."""

    def __init__(self, sessions: Sessions, holder: UUID, *, term_s: float) -> None:
        self._sessions = sessions
        self.looking = SingleStatements(sessions)
        """For statements that only look: they hold nothing, and their ends wait for no disk."""
        self._term_s = term_s
        self._id = holder
        self._term: int | None = None
        self._asked_at = float("-inf")
        self.is_leading = False
        """Whether it led when it last asked; for other threads."""

    def leads(self) -> bool:
        """Whether this engine leads, after renewing or asking when it is time to."""
        if monotonic() - self._asked_at >= self._term_s / 3:
            before = self._term
            self._term = None
            if before is None:
                with self._sessions.begin() as session:
                    leaders.end_lapsed(session, DUTY)
            with self._sessions.begin() as session:
                self._term = leaders.lead(session, DUTY, self._id, term_s=self._term_s)
            self._asked_at = monotonic()
            self.is_leading = self._term is not None
            if self._term != before:
                log.info("engine.leads" if self._term else "engine.lost_lead", extra={"term": self._term})
        return self._term is not None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that only the leader can commit: the lead's row is held to its end.

        Raises:
            LeadLost: The term is over.
        """
        with self._sessions.begin() as session:
            if self._term is None or not leaders.leads(session, DUTY, self._id, self._term):
                self._term = None
                raise LeadLost
            yield session

    def resign(self) -> None:
        """Let another engine lead at once."""
        if self._term is not None:
            with self._sessions.begin() as session:
                leaders.resign(session, DUTY, self._id)
