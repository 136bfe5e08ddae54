"""What a schedule's template is checked against: what a submit of the same would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.domain.errors import InvalidRequestError, Problem
from app.domain.families import Kind, Plan
from app.domain.jobs import SubmitJob
from app.domain.retry import RetryPolicy, policy_of
from app.domain.schedules import Template
from app.persistence.families import PARENT_QUEUE
from app.services.families import Families, SubmitBatch
from app.services.jobs import Jobs
from app.services.pipelines import Pipelines, SubmitPipeline


class Templates:
    """Templates of jobs, batches and pipelines.

    Args:
        queue_of: The queue of a job by its request.
    """

    def __init__(
        self, jobs: Jobs, families: Families, pipelines: Pipelines, *, queue_of: Callable[[SubmitJob], str]
    ) -> None:
        self._jobs = jobs
        self._families = families
        self._pipelines = pipelines
        self._queue_of = queue_of

    def checked(self, tenant: str, given: dict[str, Any], *, actor: str) -> Template:
        """The template that ``given`` asks for: a job type, or ``batch`` or ``pipeline``, and what goes with it.

        Raises:
            InvalidRequestError: A submit would be refused; pointers begin at ``/template``.
        """
        try:
            request, plan = self._request(given["type"], {**given, "tenant": tenant, "created_by": actor})
        except InvalidRequestError as error:
            problems = tuple(Problem(f"/template{fault.pointer}", fault.detail) for fault in error.problems)
            raise InvalidRequestError(
                error.detail, code=error.code, hint=error.hint, problems=problems, data=error.data
            ) from None
        return Template(
            type=request.type,
            config=request.config,
            queue=PARENT_QUEUE if plan else self._queue_of(request),
            retry=policy_of(request.retry, RetryPolicy()),
            priority=request.priority,
            timeout_s=request.timeout_s,
            attempt_timeout_s=request.attempt_timeout_s,
            labels=request.labels,
            concurrency_key=request.concurrency_key,
            max_concurrency=request.max_concurrency,
            resources=request.resources,
            name=given["name"] if request.type == Kind.PIPELINE else None,
            plan=plan,
        )

    def _request(self, kind: str, given: dict[str, Any]) -> tuple[SubmitJob, Plan | None]:
        if kind not in set(Kind):
            return self._jobs.checked(SubmitJob(**given)), None
        del given["type"]
        if kind == Kind.BATCH:
            return self._families.planned(SubmitBatch(**given))
        return self._pipelines.planned(SubmitPipeline(**given))
