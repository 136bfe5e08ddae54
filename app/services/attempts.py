"""The attempts at a job: who began it when, and what came of it."""

from __future__ import annotations

from uuid import UUID

from app.domain.attempts import Attempt, attempts
from app.persistence import events, jobs
from app.persistence.sessions import Sessions


class Attempts:
    """The use cases of attempts."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def page(self, tenant: str, job_id: UUID, *, after: int, limit: int) -> list[Attempt]:
        """The attempts at a job above fence ``after``, rescues too, in order.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
            return attempts(job, events.of_holds(session, tenant, job_id, after=after, limit=limit))[:limit]
