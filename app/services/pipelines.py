"""The use case of pipelines: stages that wait for each other, made as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from app.domain import pipelines
from app.domain.families import Kind, Member, OnFailure, Plan
from app.domain.jobs import OnDependencyFailure, Priority, SubmitJob
from app.domain.pipelines import Stage
from app.domain.ports import Bell
from app.persistence.families import PARENT_QUEUE
from app.persistence.sessions import Sessions
from app.services.founding import NO_RETRY, found
from app.services.jobs import Jobs
from app.services.once import Submitted, once


@dataclass(frozen=True, slots=True)
class SubmitPipeline:
    """A request for a pipeline, checked as far as its shape goes.

    Args:
        parallelism: Stages at work at once at most.
        stage_retries: How often a stage that failed is run again as a whole; only with ``retry``.
        timeout_s: From submission to the end of the last stage.
    """

    tenant: str
    name: str
    stages: Sequence[Stage]
    created_by: str
    failure_strategy: OnFailure = OnFailure.STOP
    stage_retries: int = 1
    parallelism: int = 5
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    timeout_s: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    depends_on: tuple[UUID, ...] = ()
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.CANCEL
    clone_of: UUID | None = None


class Pipelines:
    """The use case of pipelines."""

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs

    def create(self, pipeline: SubmitPipeline, *, idempotency_key: str | None = None) -> Submitted:
        """Store a pipeline and its stages, or nothing.

        Args:
            idempotency_key: As ``Jobs.submit`` takes it.
        Raises:
            InvalidRequestError: The stages do not fit together or to their types; the pointer names the place.
            ConflictError: A request with the same key is in flight.
        """
        request, plan = self.planned(pipeline)
        parent = self._jobs.prepared(request, queue=PARENT_QUEUE, name=pipeline.name)
        with self._sessions.begin() as session:
            submitted = once(
                session, request, idempotency_key, lambda: found(session, parent, plan), name=pipeline.name
            )
        self._bell.ring_engine()
        return submitted

    def planned(self, pipeline: SubmitPipeline) -> tuple[SubmitJob, Plan]:
        """A pipeline to be made, once or again and again: its parent and its stages.

        Raises:
            InvalidRequestError: As ``create``.
        """
        pipelines.check(pipeline.stages)
        reruns = pipeline.stage_retries if pipeline.failure_strategy is OnFailure.RETRY else 0
        members = tuple(self._member(pipeline, stage, at=f"/stages/{no}") for no, stage in enumerate(pipeline.stages))
        return _parent(pipeline), Plan(
            Kind.PIPELINE,
            max_concurrency=pipeline.parallelism,
            max_payloads=len(members),
            on_failure=pipeline.failure_strategy,
            members=members,
            reruns=reruns,
        )

    def _member(self, pipeline: SubmitPipeline, stage: Stage, *, at: str) -> Member:
        request = SubmitJob(
            tenant=pipeline.tenant,
            type=stage.type,
            config=stage.config,
            created_by=pipeline.created_by,
            retry=stage.retry,
            attempt_timeout_s=stage.attempt_timeout_s,
            concurrency_key=stage.concurrency_key,
            max_concurrency=stage.max_concurrency,
            resources=stage.resources,
        )
        member = self._jobs.member(request, at=at, templates=True)
        return replace(member, name=stage.name, depends_on=stage.depends_on, priority=stage.priority)


def _parent(pipeline: SubmitPipeline) -> SubmitJob:
    return SubmitJob(
        tenant=pipeline.tenant,
        type=Kind.PIPELINE,
        config={
            "stages": [stage.as_json() for stage in pipeline.stages],
            "failure_strategy": pipeline.failure_strategy,
            "stage_retries": pipeline.stage_retries,
            "parallelism": pipeline.parallelism,
        },
        created_by=pipeline.created_by,
        priority=pipeline.priority,
        run_after=pipeline.run_after,
        timeout_s=pipeline.timeout_s,
        depends_on=pipeline.depends_on,
        on_dependency_failure=pipeline.on_dependency_failure,
        clone_of=pipeline.clone_of,
        labels=pipeline.labels,
        retry=NO_RETRY,
    )
