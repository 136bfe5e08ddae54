"""Founding families: a parent and the children of its plan, in the transaction that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.families import Kind, Member, Plan
from app.domain.jobs import Job, SubmitJob
from app.domain.pipelines import is_templated
from app.domain.retry import RetryPolicy
from app.persistence import families, needs, new_jobs, stages
from app.persistence.new_jobs import Child, NewJob
from app.persistence.stages import NewStage
from app.services import delivering, depending
from app.services.ids import new_id

CHILDREN_AT_ONCE: Final = 1000
NO_RETRY: Final = RetryPolicy(maximum_attempts=1)
"""A parent's: the engine alone moves it."""


def found(session: Session, parent: NewJob, plan: Plan) -> Job:
    """Store a family whose children have been checked; the parent."""
    job = add_parent(session, parent, plan, total=len(plan.members))
    children = [child(parent, place, member) for place, member in enumerate(plan.members)]
    insert(session, children)
    skip_if_over(session, job)
    if plan.kind is Kind.PIPELINE:
        ids = {member.name: one.id for member, one in zip(plan.members, children, strict=True)}
        edges = [(ids[member.name], ids[needed], False) for member in plan.members for needed in member.depends_on]
        needs.add(session, edges)
        stages.add(session, [NewStage(ids[one.name], is_templated(one.config), plan.reruns) for one in plan.members])
    return job


def add_parent(session: Session, parent: NewJob, plan: Plan, *, total: int) -> Job:
    """Store a parent of ``total`` children, whenever these are stored; a need of it may have ended it already."""
    job = depending.add(session, parent, room=0)
    families.add(
        session,
        job.tenant,
        job.id,
        plan.kind,
        max_concurrency=plan.max_concurrency,
        max_payloads=plan.max_payloads,
        on_failure=plan.on_failure,
        total=total,
    )
    if plan.delivery is not None:
        delivering.begin(session, job, plan.delivery)
    return job


def insert(session: Session, children: Sequence[NewJob]) -> None:
    """Store children of a parent that counts them already."""
    for start in range(0, len(children), CHILDREN_AT_ONCE):
        new_jobs.insert(session, new_jobs.chunk(children[start : start + CHILDREN_AT_ONCE]).text())


def skip_if_over(session: Session, parent: Job) -> None:
    """End the children of a parent that a need of it ended as it was stored."""
    if parent.is_terminal:
        families.cancel_children(session, parent.tenant, parent.id, actor="engine", reason="skipped")


def child(parent: NewJob | Job, place: int, member: Member, *, giver: UUID | None = None) -> NewJob:
    """A member at its place among the parent's children; made by its ``giver`` if another payload added it."""
    said = parent if isinstance(parent, Job) else parent.request
    request = SubmitJob(
        tenant=said.tenant,
        type=member.type,
        config=member.config,
        created_by=f"{families.GIVER}{giver}" if giver else said.created_by,
        origin=said.origin,
        priority=said.priority if member.priority is None else member.priority,
        attempt_timeout_s=member.attempt_timeout_s,
        concurrency_key=member.concurrency_key,
        max_concurrency=member.max_concurrency,
        resources=member.resources,
    )
    return new_jobs.new_job(
        request,
        job_id=new_id(),
        queue=member.queue,
        retry=member.retry,
        child=Child(parent.id, place, member.name),
        needs_left=len(member.depends_on),
    )
