"""Undo: what a revertible job wrote is taken back by another job."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from app.domain.errors import ConflictError
from app.domain.jobs import SubmitJob
from app.persistence import before_images, jobs
from app.persistence.sessions import Sessions
from app.services.jobs import Jobs
from app.services.once import Submitted

REVERT: Final = "revert_job"


class Reverts:
    """The use cases of undo."""

    def __init__(self, sessions: Sessions, jobs: Jobs) -> None:
        self._sessions = sessions
        self._jobs = jobs

    def revert(self, tenant: str, job_id: UUID, *, actor: str, idempotency_key: str | None = None) -> Submitted:
        """Submit a job that makes the rows what they were before job ``job_id`` wrote them.

        Raises:
            NotFoundError: The tenant has no such job.
            ConflictError: ``job.wrong_state``: it is not over; ``revert.nothing_kept``: it was not revertible, wrote no
                row, or is reverted already.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
            are_kept = before_images.are_kept(session, job_id)
        if not job.is_terminal:
            raise ConflictError(
                f"job {job_id} is {job.state}; only a job that is over can be reverted",
                code="job.wrong_state",
                hint="Cancel it, or wait for its end.",
                data={"state": job.state},
            )
        if not are_kept:
            raise ConflictError(f"of job {job_id} nothing is kept that could be given back", code="revert.nothing_kept")
        request = SubmitJob(tenant, REVERT, {"job": str(job_id)}, actor, priority=job.priority, labels=job.labels)
        return self._jobs.submit(request, idempotency_key=idempotency_key)
