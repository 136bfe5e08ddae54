"""What a schedule is: a template that makes jobs, when it does so, and what of it is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.domain.calendars import MissedPolicy, Overlap, OverlapPolicy, Recurrence, missed, overlap
from app.domain.calendars.policies import ON_TIME_S
from app.domain.families import Plan
from app.domain.jobs import Priority, SubmitJob
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy

FIRES_AT_ONCE: Final = 200
"""Instants of one schedule that one transaction fires at most; the rest is overdue, and follows in the next."""
JOBS_AT_ONCE: Final = 2000
"""Jobs that one transaction makes at most, children too; one fire may be more."""
MAX_PAYLOADS: Final = 1000
"""Payloads of a template, which is read whole at each fire."""
LONGEST_WINDOW_S: Final = 30 * 86_400.0
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Template:
    """The job that each fire makes, as its type's checks left it.

    Args:
        queue: The type's own; kept, so that firing needs no job types.
        timeout_s: From the fire to the end; ``attempt_timeout_s`` for one attempt.
        name: Of a pipeline.
        plan: The children that are made with it, if it is a batch or a pipeline.
    """

    type: str
    config: dict[str, Any]
    queue: str
    retry: RetryPolicy
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None
    attempt_timeout_s: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()
    name: str | None = None
    plan: Plan | None = None

    @property
    def size(self) -> int:
        """How many jobs a fire makes."""
        return 1 + len(self.plan.members) + (self.plan.delivery is not None) if self.plan else 1

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "type": self.type,
            "config": self.config,
            "queue": self.queue,
            "retry": self.retry.as_json(),
            "priority": int(self.priority),
            "timeout_s": self.timeout_s,
            "attempt_timeout_s": self.attempt_timeout_s,
            "labels": self.labels,
            "concurrency_key": self.concurrency_key,
            "max_concurrency": self.max_concurrency,
            "resources": self.resources.as_json(),
            "name": self.name,
            "plan": self.plan.as_json() if self.plan else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Template:
        """The inverse of ``as_json``."""
        return cls(
            **{
                **value,
                "retry": RetryPolicy.from_json(value["retry"]),
                "priority": Priority(value["priority"]),
                "resources": Resources.from_json(value["resources"]),
                "plan": Plan.from_json(value["plan"]) if value["plan"] else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row of ``schedules``; times are aware UTC.

    Args:
        missed_window_s: How late a fire may be made up for; only for ``all``.
        version: Counts its changes, from 1.
        next_fire_at: The first instant that has not fired; it stands still while the schedule is paused. ``None`` when
            there is none left.
    """

    id: UUID
    tenant: str
    name: str
    template: Template
    rules: Recurrence
    created_by: str
    created_at: datetime
    updated_at: datetime
    missed_policy: MissedPolicy = MissedPolicy.LAST
    missed_window_s: float = 0.0
    overlap_policy: OverlapPolicy = OverlapPolicy.ALLOW
    paused: bool = False
    version: int = 1
    next_fire_at: datetime | None = None

    @property
    def alarm_at(self) -> datetime | None:
        """When it is to be woken; ``None`` for never."""
        return None if self.paused else self.next_fire_at

    def request(self, *, created_by: str, run_after: datetime | None = None) -> SubmitJob:
        """A job by the template as it is now."""
        template = self.template
        return SubmitJob(
            tenant=self.tenant,
            type=template.type,
            config=template.config,
            created_by=created_by,
            priority=template.priority,
            run_after=run_after,
            timeout_s=template.timeout_s,
            attempt_timeout_s=template.attempt_timeout_s,
            retry=template.retry,
            schedule_id=self.id,
            labels=template.labels,
            concurrency_key=template.concurrency_key,
            max_concurrency=template.max_concurrency,
            resources=template.resources,
        )


@dataclass(frozen=True, slots=True)
class Due:
    """What is due of a schedule: the instants to fire, in order, and the first one after."""

    instants: tuple[datetime, ...]
    next_fire_at: datetime | None


def due(schedule: Schedule, now: datetime) -> Due:
    """What ``schedule`` fires at ``now`` by its rules and its policy for missed fires.

    However long it slept, only the instants that may still be fired are gone through.
    """
    first = schedule.alarm_at
    if first is None or first > now:
        return Due((), schedule.next_fire_at)
    policy, rules = schedule.missed_policy, schedule.rules
    late_s = max(schedule.missed_window_s, ON_TIME_S) if policy is MissedPolicy.ALL else ON_TIME_S
    before = first - _TICK
    most = max(1, min(FIRES_AT_ONCE, JOBS_AT_ONCE // schedule.template.size))
    found = rules.due_between(max(before, now - timedelta(seconds=late_s) - _TICK), now, most)
    following = rules.next_after(found[-1] if len(found) == most else now)
    if not found and policy is MissedPolicy.LAST and (last := rules.last_between(before, now)):
        found = (last,)
    return Due(missed(policy, found, now, schedule.missed_window_s), following)


@dataclass(frozen=True, slots=True)
class Fire:
    """One job to be made: of ``schedule``, for ``instant``, after the jobs ``waits_for``."""

    schedule: Schedule
    instant: datetime
    job_id: UUID
    waits_for: tuple[UUID, ...] = ()

    def request(self, now: datetime) -> SubmitJob:
        """The job; jitter moves its begin, not its instant."""
        begin = self.schedule.rules.begin_of(str(self.schedule.id), self.instant)
        run_after = begin if begin > now else None
        return self.schedule.request(created_by=f"schedule:{self.schedule.id}", run_after=run_after)


def placed(
    schedule: Schedule, instants: Sequence[datetime], ids: Sequence[UUID], *, running: Sequence[UUID], waiting: int
) -> list[Fire]:
    """The fires of ``instants`` that the policy for overlaps lets through.

    Args:
        ids: One for each instant, for its job.
        running: The schedule's jobs that are not over and wait for none of the others.
        waiting: How many of its jobs wait for others.
    """
    ahead = list(running)
    fires = []
    for instant, job_id in zip(instants, ids, strict=True):
        verdict = overlap(schedule.overlap_policy, running=len(ahead), waiting=waiting)
        if verdict is Overlap.RUN:
            fires.append(Fire(schedule, instant, job_id))
            ahead.append(job_id)
        elif verdict is Overlap.WAIT:
            fires.append(Fire(schedule, instant, job_id, tuple(ahead)))
            waiting += 1
    return fires
