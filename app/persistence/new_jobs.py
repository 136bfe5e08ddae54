"""The statement that makes jobs: any number at once, each straight to its queue when that has room."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.job_types import CHEAP_QUEUE
from app.domain.jobs import Job, SubmitJob
from app.domain.lifecycle import Event, JobState
from app.domain.pacing import FIRST_TURN_S, TURN_S
from app.domain.retry import RetryPolicy
from app.persistence.jobs import ADMISSION_LOCK
from app.persistence.prepared import Prepared


class Child(NamedTuple):
    """A job's place in a family."""

    parent_id: UUID
    child_no: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is ready to be stored.

    Args:
        child: Its parent, its place among the parent's children, and its name there, which is ``name``.
        needs_left: Jobs it waits for that are not over; a child and one that waits begin ``blocked``.
    """

    id: UUID
    request: SubmitJob
    queue: str
    retry: RetryPolicy
    child: Child | None = None
    needs_left: int = 0
    name: str | None = None


def new_job(
    request: SubmitJob,
    *,
    job_id: UUID,
    queue: str,
    retry: RetryPolicy,
    child: Child | None = None,
    needs_left: int = 0,
    name: str | None = None,
) -> NewJob:
    """``request`` as a job of ``queue``, to be given to ``add_all``; ``name`` for one that is no child."""
    return NewJob(job_id, request, queue, retry, child, needs_left, child.name if child else name)


@dataclass(frozen=True, slots=True)
class Alike:
    """What jobs have in common that differ in id, config, labels, name and place alone.

    Args:
        request: Its config and its labels are none of theirs.
        parent_id: Whose children they are.
        blocked: Whether they begin so; those that wait for others always do.
    """

    request: SubmitJob
    queue: str
    retry: RetryPolicy
    parent_id: UUID | None = None
    blocked: bool = False
    needs_left: int = 0

    def as_json(self) -> dict[str, Any]:
        """As the statement takes it."""
        request = self.request
        return {
            "tenant": request.tenant,
            "type": request.type,
            "queue": self.queue,
            "priority": int(request.priority),
            "retry": self.retry.as_json(),
            "origin": request.origin,
            "created_by": request.created_by,
            "run_after": request.run_after.isoformat() if request.run_after else None,
            "timeout_s": request.timeout_s,
            "attempt_timeout_s": request.attempt_timeout_s,
            "clone_of": str(request.clone_of) if request.clone_of else None,
            "schedule_id": str(request.schedule_id) if request.schedule_id else None,
            "dialect": request.dialect,
            "blocked": self.blocked or self.needs_left > 0,
            "needs_left": self.needs_left,
            "on_dependency_failure": request.on_dependency_failure,
            "parent_id": str(self.parent_id) if self.parent_id else None,
            "concurrency_key": request.concurrency_key or "",
            "max_concurrency": request.max_concurrency or 0,
            "memory_mb": request.resources.memory_mb,
            "cpu_m": request.resources.cpu_m,
        }


class Chunk:
    """Jobs for one statement, in their order; what many of them have in common goes to Postgres once.

    To read twenty fields of each of a thousand jobs costs it more than to store them.
    """

    def __init__(self) -> None:
        self._alike: dict[int, tuple[Alike, list[dict[str, Any]]]] = {}
        self._jobs = 0

    def __len__(self) -> int:
        return self._jobs

    def add(
        self,
        alike: Alike,
        job_id: str,
        config: dict[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        child_no: int | None = None,
        name: str | None = None,
    ) -> None:
        """One more job.

        Args:
            alike: The same object for all that have it in common.
            child_no: Its place among its parent's children.
        """
        job: dict[str, Any] = {"id": job_id, "config": config, "place": self._jobs}
        if labels:
            job["labels"] = labels
        if child_no is not None:
            job["child_no"] = child_no
        if name is not None:
            job["name"] = name
        self._alike.setdefault(id(alike), (alike, []))[1].append(job)
        self._jobs += 1

    def text(self) -> str:
        """As ``insert`` takes it: one line."""
        return json.dumps([{**alike.as_json(), "jobs": jobs} for alike, jobs in self._alike.values()])


def chunk(new: Sequence[NewJob]) -> Chunk:
    """Jobs that have little in common, or that are few."""
    made = Chunk()
    for job in new:
        child, parent_id, child_no = job.child, None, None
        if child is not None:
            parent_id, child_no = child.parent_id, child.child_no
        alike = Alike(job.request, job.queue, job.retry, parent_id, child is not None, job.needs_left)
        request = job.request
        made.add(alike, str(job.id), request.config, labels=request.labels, child_no=child_no, name=job.name)
    return made


_QUEUED: Final = "state = 'queued' AND queue = c.queue AND priority = c.priority"
# No EXISTS: a plan that was made while there was little may hash all that waits, at each submit.
_STORE: Final = f"""
    WITH alike AS MATERIALIZED (
        SELECT given.*, run_after IS NULL AND NOT blocked AND concurrency_key = ''
            AND (SELECT true FROM limits WHERE kind = 'tenant' AND limits.tenant = given.tenant AND name = '') IS NULL
            AND (SELECT true FROM limits WHERE kind = 'type' AND limits.tenant = '' AND name = given.type) IS NULL
            AS may_go
        FROM jsonb_to_recordset(CAST(:given AS jsonb)) AS given (
            tenant text, type text, queue text, priority smallint, retry jsonb, origin text, created_by text,
            run_after timestamptz, timeout_s double precision, attempt_timeout_s double precision, clone_of uuid,
            schedule_id uuid, dialect jsonb, blocked boolean, needs_left integer,
            on_dependency_failure text, parent_id uuid, concurrency_key text, max_concurrency integer,
            memory_mb integer, cpu_m integer, jobs jsonb
        )
    ), classes AS MATERIALIZED (
        SELECT DISTINCT queue, priority FROM alike WHERE may_go AND :room > 0
    ), rooms AS MATERIALIZED (
        SELECT queue, priority, CASE
            WHEN (SELECT paused FROM queues WHERE name = queue) THEN NULL
            WHEN (SELECT true FROM jobs WHERE queue = c.queue AND priority = c.priority
                  AND state IN ('open', 'retry_wait') AND NOT paused AND due_at <= now() LIMIT 1) THEN NULL
            WHEN NOT pg_try_advisory_xact_lock({ADMISSION_LOCK}, hashtext(queue)) THEN NULL
            ELSE :room - (SELECT count(*) FROM (SELECT FROM jobs WHERE {_QUEUED} AND turn_at <= statement_timestamp()
                                                LIMIT :room) AS before)
        END AS places FROM classes AS c
    ), rooms_ahead AS MATERIALIZED (
        SELECT queue, priority, places, CASE WHEN queue = '{CHEAP_QUEUE}' AND (places > 0 OR places = 0 AND :before > 0)
            THEN :ahead - CASE WHEN :before > 0 THEN :before ELSE (
                SELECT count(*) FROM (SELECT FROM jobs WHERE {_QUEUED} LIMIT :ahead) AS admitted
            ) END
        END AS places_ahead FROM rooms AS c
    ), ranked AS (
        SELECT id, tenant, type, queue, priority, config, retry, origin, created_by, run_after, timeout_s,
            attempt_timeout_s, clone_of, schedule_id, labels, dialect, blocked, needs_left,
            on_dependency_failure, parent_id, child_no, name, concurrency_key, max_concurrency, memory_mb, cpu_m,
            place, may_go, places, places_ahead,
            row_number() OVER (PARTITION BY queue, priority, may_go ORDER BY place) AS rank
        FROM alike LEFT JOIN rooms_ahead USING (queue, priority) CROSS JOIN LATERAL jsonb_to_recordset(alike.jobs)
            AS job (id uuid, config jsonb, labels jsonb, place integer, child_no integer, name text)
    ), placed AS (
        SELECT *, may_go AND rank <= coalesce(greatest(places, places_ahead), 0) AS free, CASE
            WHEN may_go AND rank <= places THEN clock_timestamp()
            WHEN may_go AND rank <= places_ahead
                THEN statement_timestamp() + make_interval(secs => {FIRST_TURN_S} + {TURN_S} * (:before + place))
        END AS turn_at FROM ranked
    ), added AS (
        INSERT INTO jobs (id, tenant, type, queue, state, priority, config, retry, origin, created_by, event_no,
                          created_at, updated_at, run_after, due_at, deadline_at, attempt_timeout_s,
                          admitted_at, turn_at, clone_of, schedule_id, labels, dialect, needs_left,
                          on_dependency_failure, parent_id, child_no, name, concurrency_key, max_concurrency,
                          memory_mb, cpu_m)
        SELECT id, tenant, type, queue,
               CASE WHEN blocked THEN 'blocked' WHEN free THEN 'queued' ELSE 'open' END,
               priority, config, retry, origin, created_by, 1, now(), now(), run_after, coalesce(run_after, now()),
               now() + make_interval(secs => timeout_s), attempt_timeout_s,
               CASE WHEN free THEN statement_timestamp() END, turn_at, clone_of, schedule_id, labels, dialect,
               needs_left, on_dependency_failure, parent_id, child_no, name, concurrency_key, max_concurrency,
               memory_mb, cpu_m
        FROM placed ORDER BY place
        RETURNING id, number, tenant, queue, state, created_by, created_at, admitted_at, deadline_at
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)
        SELECT id, 1, tenant, '{Event.SUBMIT}', created_by, NULL, state, 0 FROM added
    )
"""
_ADD: Final = Prepared(f"{_STORE} SELECT id, number, state, created_at, admitted_at, deadline_at FROM added")
_INSERT: Final = Prepared(
    f"{_STORE} SELECT queue, count(*) FILTER (WHERE state = 'queued') AS queued FROM added GROUP BY queue"
)


def add_all(session: Session, new: Sequence[NewJob], *, room: int) -> list[Job]:
    """Insert jobs, in the order given: ``queued`` when due and their queue and class have room, else ``open``.

    Args:
        room: Queued jobs of a class below which the engine need not be asked. Two submits that race may each see the
            last place, so callers pass less than the queue's bound and leave the rest to the engine.
    """
    rows = _ADD.execute(session, {"given": chunk(new).text(), "room": room, "ahead": 0, "before": 0})
    stored = {row.id: row for row in rows}
    jobs = []
    for job in new:
        row, request = stored[job.id], job.request
        jobs.append(
            Job(
                id=job.id,
                number=row.number,
                tenant=request.tenant,
                type=request.type,
                queue=job.queue,
                state=JobState(row.state),
                priority=request.priority,
                config=request.config,
                retry=job.retry,
                origin=request.origin,
                created_by=request.created_by,
                created_at=row.created_at,
                updated_at=row.created_at,
                event_no=1,
                run_after=request.run_after,
                deadline_at=row.deadline_at,
                attempt_timeout_s=request.attempt_timeout_s,
                admitted_at=row.admitted_at,
                parent_id=job.child.parent_id if job.child else None,
                child_no=job.child.child_no if job.child else None,
                name=job.name,
                needs_left=job.needs_left,
                clone_of=request.clone_of,
                schedule_id=request.schedule_id,
                labels=request.labels,
                dialect=request.dialect,
                concurrency_key=request.concurrency_key,
                max_concurrency=request.max_concurrency,
                resources=request.resources,
            )
        )
    return jobs


def insert(session: Session, given: str, *, room: int = 0, ahead: int = 0, before: int = 0) -> dict[str, int]:
    """``add_all`` for the jobs of a ``Chunk``, given as its text, when nobody asks for what they look like.

    Args:
        ahead: Where a class of the cheap queue has room for one of them, the others stand in it ahead of their turn
            (0074), as long as it has no more queued jobs than this.
        before: How many jobs of the same request were inserted already, whose turns come first.
    Returns:
        How many of them stand in each queue.
    """
    rows = _INSERT.execute(session, {"given": given, "room": room, "ahead": ahead, "before": before})
    return {row.queue: row.queued for row in rows}
