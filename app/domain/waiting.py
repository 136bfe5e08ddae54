"""Why a job that is not at work waits, worked out from what is known of it at one instant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.lifecycle import JobState


class Cause(StrEnum):
    """What a job waits for."""

    DEPENDENCY = "dependency"
    WINDOW = "window"
    """Its place among the children of its parent at work."""
    PAUSE = "pause"
    RUN_AFTER = "run_after"
    RETRY = "retry"
    LIMIT = "limit"
    BACKPRESSURE = "backpressure"
    NO_WORKER = "no_worker"
    BUSY = "busy"
    """A free slot: every other is taken, or jobs go before it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing a job waits for: in a word, in a sentence, and its facts."""

    cause: Cause
    message: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job waits.

    Args:
        position: Its place in its queue, from 1; ``None`` while it does not stand there.
        likely_start_at: By how long jobs took lately; ``None`` when nobody can say.
    """

    reasons: tuple[Reason, ...]
    position: int | None
    likely_start_at: datetime | None


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit that holds for a job, and how much of it is used."""

    kind: str
    name: str
    max_concurrency: int | None
    used: int
    rate: int | None = None
    rate_used: int = 0
    rate_until: datetime | None = None
    period_s: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a waiting job at ``now``.

    Args:
        needs: Jobs it waits for; the first hundred.
        window: How many children of its parent may be at work; ``None`` without a parent.
        has_queue: Whether workers serve its queue; no worker serves a parent's.
        class_queued: Jobs of its queue and priority that are admitted, of ``class_bound``.
        cpu_m: What it asks for, and ``widest_cpu_m`` what the largest worker of its queue has.
        ahead: Jobs of its queue that go before it.
        run_s: How long jobs of its queue held a slot lately, on average.
    """

    now: datetime
    state: JobState
    attempts: int
    due_at: datetime
    needs: tuple[UUID, ...]
    parent_id: UUID | None
    window: int | None
    paused: bool
    queue_paused: bool
    parent_paused: bool
    queue: str
    has_queue: bool
    limits: tuple[LimitUse, ...]
    class_queued: int
    class_bound: int
    slots: int
    cpu_m: int
    widest_cpu_m: int
    ahead: int
    run_s: float | None


def why(facts: Facts) -> Why:
    """The reasons, most lasting first, and where it stands."""
    reasons = (*_blocked(facts), *_paused(facts), *_early(facts))
    if facts.state is JobState.BLOCKED or any(reason.cause in {Cause.RUN_AFTER, Cause.RETRY} for reason in reasons):
        return Why(reasons, None, None)
    if facts.state is not JobState.QUEUED:
        reasons += tuple(_not_admitted(facts))
    reasons += tuple(_no_worker(facts))
    position = facts.ahead + 1 if facts.has_queue and not facts.paused else None
    if reasons and {reason.cause for reason in reasons} != {Cause.BACKPRESSURE}:
        return Why(reasons, position, None)
    if facts.has_queue and not reasons:
        reasons = (Reason(Cause.BUSY, f"{facts.ahead} jobs go before it, to {facts.slots} slots"),)
    return Why(reasons, position, _likely_start(facts))


def _likely_start(facts: Facts) -> datetime | None:
    if facts.run_s is None or not facts.slots:
        return None
    return facts.now + timedelta(seconds=facts.ahead * facts.run_s / facts.slots)


def _blocked(facts: Facts) -> Iterator[Reason]:
    if facts.needs:
        data = {"job_ids": [str(need) for need in facts.needs]}
        yield Reason(Cause.DEPENDENCY, f"{len(facts.needs)} jobs that it waits for are not over", data)
    elif facts.window is not None and (facts.state is JobState.BLOCKED or _waits_for_its_place_again(facts)):
        place = {"parent_id": str(facts.parent_id), "max_concurrency": facts.window}
        yield Reason(Cause.WINDOW, f"its parent has {facts.window} children at work at most", place)


def _waits_for_its_place_again(facts: Facts) -> bool:
    return facts.state is JobState.RETRY_WAIT and facts.due_at <= facts.now


def _paused(facts: Facts) -> Iterator[Reason]:
    if facts.paused:
        yield Reason(Cause.PAUSE, "the job is paused", {"paused": "job"})
    if facts.parent_paused:
        yield Reason(Cause.PAUSE, "its parent is paused", {"paused": "parent", "parent_id": str(facts.parent_id)})
    if facts.queue_paused:
        yield Reason(Cause.PAUSE, f"the queue {facts.queue!r} is paused", {"paused": "queue", "queue": facts.queue})


def _early(facts: Facts) -> Iterator[Reason]:
    if facts.state in {JobState.OPEN, JobState.RETRY_WAIT} and facts.due_at > facts.now:
        until = {"until": facts.due_at.isoformat()}
        if facts.state is JobState.RETRY_WAIT:
            yield Reason(Cause.RETRY, f"attempt {facts.attempts} failed; the next is due then", until)
        else:
            yield Reason(Cause.RUN_AFTER, "it is due then", until)


def _not_admitted(facts: Facts) -> Iterator[Reason]:
    for limit in facts.limits:
        said = {"kind": limit.kind, "name": limit.name}
        if limit.max_concurrency is not None and limit.used >= limit.max_concurrency:
            data = {**said, "used": limit.used, "allowed": limit.max_concurrency}
            message = f"{limit.used} of {limit.max_concurrency} jobs of {limit.kind} {limit.name!r} are at work"
            yield Reason(Cause.LIMIT, message, data)
        if limit.rate is not None and limit.rate_used >= limit.rate:
            until = limit.rate_until.isoformat() if limit.rate_until else None
            data = {**said, "used": limit.rate_used, "allowed": limit.rate, "period_s": limit.period_s, "until": until}
            message = (
                f"{limit.rate_used} of {limit.rate} jobs of {limit.kind} {limit.name!r} began in {limit.period_s:g} s"
            )
            yield Reason(Cause.LIMIT, message, data)
    if facts.class_queued >= facts.class_bound:
        data = {"used": facts.class_queued, "allowed": facts.class_bound}
        yield Reason(Cause.BACKPRESSURE, f"the queue {facts.queue!r} has admitted as many as it may", data)


def _no_worker(facts: Facts) -> Iterator[Reason]:
    if facts.has_queue and not facts.slots:
        yield Reason(Cause.NO_WORKER, f"no worker serves the queue {facts.queue!r}", {"queue": facts.queue})
    elif facts.cpu_m > facts.widest_cpu_m and facts.has_queue:
        data = {"queue": facts.queue, "cpu": facts.cpu_m / 1000, "largest": facts.widest_cpu_m / 1000}
        yield Reason(Cause.NO_WORKER, "no worker has as many processors as it asks for", data)
