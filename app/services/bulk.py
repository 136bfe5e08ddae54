"""Many independent jobs of one request: each checked by itself, and then all of them stored or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.job_types import CHEAP_AT_ONCE, CHEAP_QUEUE
from app.domain.jobs import SubmitJob
from app.domain.ports import Bell
from app.persistence import idempotency, new_jobs
from app.persistence.new_jobs import NewJob
from app.persistence.sessions import Sessions
from app.services import depending
from app.services.jobs import Jobs
from app.services.once import earlier, fingerprint

MAX_JOBS: Final = 10_000
_AT: Final = "/jobs/{}"
_JOBS_AT_ONCE: Final = 1000
"""In one statement."""


@dataclass(frozen=True, slots=True)
class SubmittedMany:
    """The ids of jobs in the order of their request, and whether an earlier request had made them."""

    ids: list[UUID]
    replayed: bool = False


class Bulk:
    """Submits many jobs at once.

    Args:
        queue_bound: Jobs that may stand admitted per queue and class.
    """

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs, *, queue_bound: int) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs
        self._room = queue_bound // 2

    def submit(self, requests: Sequence[SubmitJob], *, idempotency_key: str | None = None) -> SubmittedMany:
        """Accept jobs of one tenant, all or none.

        Args:
            idempotency_key: A second submit with the same key and the same requests answers with the first one's jobs.
        Raises:
            InvalidRequestError: One does not fit its type, or the key was used for others; the pointer names which.
            NotFoundError: One depends on a job that the tenant does not have.
            ConflictError: A request with the same key is in flight.
        """
        checked = [self._jobs.checked(request, at=_AT.format(place)) for place, request in enumerate(requests)]
        with self._sessions.begin() as session:
            if idempotency_key is None:
                ids, queued = self._store(session, checked)
            else:
                tenant, said = checked[0].tenant, fingerprint(checked)
                made = earlier(session, tenant, idempotency_key, said)
                if made is not None:
                    return SubmittedMany(made, replayed=True)
                ids, queued = self._store(session, checked)
                idempotency.add(session, tenant, idempotency_key, fingerprint=said, job_ids=ids)
        self._ring(queued)
        return SubmittedMany(ids)

    def _store(self, session: Session, requests: Sequence[SubmitJob]) -> tuple[list[UUID], Counter[str]]:
        """Insert them; their ids, and how many went straight to each queue."""
        waits = depending.waits(session, requests, at=_AT)
        new = [depending.waiting(self._jobs.new(request), wait) for request, wait in zip(requests, waits, strict=True)]
        queued = self._insert(session, new)
        depending.keep(session, [(job.id, wait) for job, wait in zip(new, waits, strict=True)])
        for job, wait in zip(new, waits, strict=True):
            if wait.stopped:
                depending.stop(session, job.request.tenant, job.id, job.request.on_dependency_failure)
        return [job.id for job in new], queued

    def _insert(self, session: Session, new: Sequence[NewJob]) -> Counter[str]:
        queued: Counter[str] = Counter()
        for start in range(0, len(new), _JOBS_AT_ONCE):
            texts = [job.text for job in new[start : start + _JOBS_AT_ONCE]]
            queued.update(new_jobs.insert(session, texts, room=self._room))
        return queued

    def _ring(self, queued: Counter[str]) -> None:
        for queue, jobs in queued.items():
            self._bell.ring(queue, -(-jobs // CHEAP_AT_ONCE) if queue == CHEAP_QUEUE else jobs)
        self._bell.ring_engine()
