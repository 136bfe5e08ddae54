"""The use case of pipelines: stages that wait for each other, made as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from app.domain import pipelines
from app.domain.families import Kind, OnFailure
from app.domain.jobs import Job, Priority, SubmitJob
from app.domain.pipelines import Stage, is_templated
from app.domain.ports import Bell
from app.domain.retry import RetryPolicy
from app.persistence import families, needs, new_jobs, stages
from app.persistence.families import PARENT_QUEUE
from app.persistence.new_jobs import Child, NewJob
from app.persistence.sessions import Sessions
from app.persistence.stages import NewStage
from app.services.jobs import Jobs

_NO_RETRY: Final = RetryPolicy(maximum_attempts=1)


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


class Pipelines:
    """The use case of pipelines."""

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs

    def create(self, pipeline: SubmitPipeline) -> Job:
        """Store a pipeline and its stages, or nothing.

        Raises:
            InvalidRequestError: The stages do not fit together or to their types; the pointer names the place.
        """
        pipelines.check(pipeline.stages)
        parent = self._parent(pipeline)
        new = {stage.name: self._stage(parent, pipeline, no) for no, stage in enumerate(pipeline.stages)}
        edges = [(new[stage.name].id, new[name].id, False) for stage in pipeline.stages for name in stage.depends_on]
        reruns = pipeline.stage_retries if pipeline.failure_strategy is OnFailure.RETRY else 0
        with self._sessions.begin() as session:
            [job] = new_jobs.add_all(session, [parent], room=0)
            families.add(
                session,
                pipeline.tenant,
                job.id,
                Kind.PIPELINE,
                max_concurrency=pipeline.parallelism,
                max_payloads=len(new),
                on_failure=pipeline.failure_strategy,
                total=len(new),
            )
            new_jobs.insert(session, [stage.text for stage in new.values()])
            needs.add(session, edges)
            unfilled = {stage.name: is_templated(stage.config) for stage in pipeline.stages}
            stages.add(session, [NewStage(new[name].id, unfilled[name], reruns) for name in new])
        self._bell.ring_engine()
        return job

    def _parent(self, pipeline: SubmitPipeline) -> NewJob:
        request = SubmitJob(
            tenant=pipeline.tenant,
            type=Kind.PIPELINE,
            config={
                "stages": [_as_json(stage) for stage in pipeline.stages],
                "failure_strategy": pipeline.failure_strategy,
                "stage_retries": pipeline.stage_retries,
                "parallelism": pipeline.parallelism,
            },
            created_by=pipeline.created_by,
            priority=pipeline.priority,
            run_after=pipeline.run_after,
            timeout_s=pipeline.timeout_s,
            labels=pipeline.labels,
            retry=_NO_RETRY,
        )
        return self._jobs.prepared(request, queue=PARENT_QUEUE, name=pipeline.name)

    def _stage(self, parent: NewJob, pipeline: SubmitPipeline, no: int) -> NewJob:
        stage = pipeline.stages[no]
        request = SubmitJob(
            tenant=pipeline.tenant,
            type=stage.type,
            config=stage.config,
            created_by=pipeline.created_by,
            priority=pipeline.priority,
            retry=stage.retry,
            attempt_timeout_s=stage.attempt_timeout_s,
        )
        child = Child(parent.id, no, stage.name)
        left = len(stage.depends_on)
        return self._jobs.prepared_child(request, child, at=f"/stages/{no}", needs_left=left, templates=True)


def _as_json(stage: Stage) -> dict[str, Any]:
    said = asdict(stage)
    return {**said, "retry": stage.retry.as_json() if stage.retry else None}
