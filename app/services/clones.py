"""The use case of cloning: a new job like one there is, and a new family with what the first was given."""

from __future__ import annotations

from uuid import UUID

from app.domain.families import Kind, OnFailure
from app.domain.jobs import Job, SubmitJob
from app.domain.pipelines import Stage
from app.domain.retry import RetryChanges
from app.persistence.families import PARENT_QUEUE
from app.services.families import Families, SubmitBatch
from app.services.jobs import Jobs
from app.services.pipelines import Pipelines, SubmitPipeline


class Clones:
    """The use case of cloning; what is cloned is checked as if it were submitted now."""

    def __init__(self, jobs: Jobs, families: Families, pipelines: Pipelines) -> None:
        self._jobs = jobs
        self._families = families
        self._pipelines = pipelines

    def clone(self, tenant: str, job_id: UUID, *, actor: str) -> Job:
        """A new job with the same type, config and options, linked to the first; it waits for no other.

        Raises:
            InvalidRequestError: It could not be submitted now: a type or a table of it is gone.
        """
        first = self._jobs.get(tenant, job_id)
        if first.queue != PARENT_QUEUE:
            return self._jobs.submit(_job(first, actor)).job
        if first.type == Kind.BATCH:
            return self._families.create_batch(self._batch(first, actor)).job
        return self._pipelines.create(_pipeline(first, actor)).job

    def _batch(self, first: Job, actor: str) -> SubmitBatch:
        said = first.config
        return SubmitBatch(
            tenant=first.tenant,
            payloads=self._families.given(first.tenant, first.id),
            created_by=actor,
            max_concurrency=said["max_concurrency"],
            max_payloads=said["max_payloads"],
            on_failure=OnFailure(said["on_failure"]),
            retry=RetryChanges.from_json(said["retry"]),
            priority=first.priority,
            timeout_s=_timeout_s(first),
            labels=first.labels,
            clone_of=first.id,
            sink=said["sink"],
        )


def _pipeline(first: Job, actor: str) -> SubmitPipeline:
    said = first.config
    return SubmitPipeline(
        tenant=first.tenant,
        name=first.name or "",
        stages=[Stage.from_json(stage) for stage in said["stages"]],
        created_by=actor,
        failure_strategy=OnFailure(said["failure_strategy"]),
        stage_retries=said["stage_retries"],
        parallelism=said["parallelism"],
        priority=first.priority,
        timeout_s=_timeout_s(first),
        labels=first.labels,
        clone_of=first.id,
    )


def _job(first: Job, actor: str) -> SubmitJob:
    return SubmitJob(
        tenant=first.tenant,
        type=first.type,
        config=first.config,
        created_by=actor,
        origin=first.origin,
        priority=first.priority,
        timeout_s=_timeout_s(first),
        attempt_timeout_s=first.attempt_timeout_s,
        retry=first.retry,
        clone_of=first.id,
        labels=first.labels,
        dialect=first.dialect,
        concurrency_key=first.concurrency_key,
        max_concurrency=first.max_concurrency,
        resources=first.resources,
    )


def _timeout_s(first: Job) -> float | None:
    return (first.deadline_at - first.created_at).total_seconds() if first.deadline_at else None
