"""Another config for a job that waits or has failed: what was asked for at first stays in its trail."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from app.domain.amendments import Amendment, merged
from app.domain.errors import ConflictError
from app.domain.job_types import Registry
from app.domain.jobs import Job, SubmitJob
from app.persistence.families import PARENT_QUEUE
from app.services.control import Control
from app.services.jobs import Jobs


class Amendments:
    """The use cases of retry and resume with a changed config."""

    def __init__(self, registry: Registry, jobs: Jobs, control: Control) -> None:
        self._registry = registry
        self._jobs = jobs
        self._control = control

    def retry(self, tenant: str, job_id: UUID, patch: Mapping[str, Any] | None, *, actor: str) -> Job:
        """``Control.retry``, with a merge patch of the config if one is given.

        Raises:
            InvalidRequestError: The config that comes out does not fit the job's type.
            ConflictError: It is a family, it cannot go on with that config, or as ``Control.retry``.
        """
        return self._control.retry(tenant, job_id, actor=actor, amendment=self._amendment(tenant, job_id, patch, actor))

    def resume(self, tenant: str, job_id: UUID, patch: Mapping[str, Any] | None, *, actor: str) -> Job:
        """``Control.resume``, likewise; with a patch only a job that is paused and held by nobody."""
        amendment = self._amendment(tenant, job_id, patch, actor)
        return self._control.resume(tenant, job_id, actor=actor, amendment=amendment)

    def _amendment(self, tenant: str, job_id: UUID, patch: Mapping[str, Any] | None, actor: str) -> Amendment | None:
        if not patch:
            return None
        job = self._jobs.get(tenant, job_id)
        if job.queue == PARENT_QUEUE:
            raise ConflictError(
                f"job {job_id} is a family, whose config cannot be changed",
                code="job.config_fixed",
                hint="Change its children, or submit it anew.",
            )
        after = self._jobs.checked(SubmitJob(tenant, job.type, merged(job.config, patch), actor)).config
        kind = self._registry.get(job.type)
        if kind.amended is not None and job.checkpoint is not None:
            parse = partial(self._registry.parse, kind)
            kind.amended(parse(job.config), parse(after), job.checkpoint)
        return Amendment(job.config, after)
