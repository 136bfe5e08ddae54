"""The use cases of steering the installation: pause a queue, set limits, give a pool more or fewer slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.access import check_tenant
from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.job_types import CHEAP_QUEUE, Registry
from app.domain.limits import Limit, LimitKind
from app.domain.ports import Bell
from app.domain.waiting import Why, why
from app.persistence import admission, changes, limits, queues, waiting, workers
from app.persistence.changes import Change
from app.persistence.queues import Queue
from app.persistence.sessions import Sessions
from app.persistence.workers import LiveSlot
from config.celery import GROWING_QUEUES, QUEUES

MOST_SLOTS: Final = 256


class Steering:
    """The use cases of steering the installation; ``queue_bound`` jobs may stand admitted per queue and class."""

    def __init__(self, sessions: Sessions, bell: Bell, registry: Registry, *, queue_bound: int) -> None:
        self._queue_bound = queue_bound
        self._sessions = sessions
        self._bell = bell
        self._registry = registry

    def why_waiting(self, tenant: str, job_ids: Sequence[UUID]) -> list[Why | None]:
        """Why each job waits; ``None`` for one that does not, or is not the tenant's."""
        with self._sessions.begin() as session:
            found = [waiting.facts(session, tenant, job_id, class_bound=self._queue_bound) for job_id in job_ids]
        return [why(facts) if facts else None for facts in found]

    def queues(self) -> list[Queue]:
        """Every queue, and how full it is."""
        with self._sessions.begin() as session:
            return queues.read(session, QUEUES)

    def pause(self, tenant: str, name: str, *, paused: bool, actor: str) -> Queue:
        """Keep jobs of a queue from starting, for all tenants, or let them; those that run go on.

        Raises:
            NotFoundError: There is no such queue.
        """
        self._check_queue(name)
        with self._sessions.begin() as session:
            before = queues.set_paused(session, name, paused=paused)
            _record(session, tenant, f"queue {name} paused", before, paused, actor=actor)
            [queue] = queues.read(session, (name,))
        if not paused:
            self._bell.ring_engine()
        return queue

    def limits(self, tenant: str, *, all_tenants: bool) -> list[Limit]:
        """The limits that hold for a tenant's jobs; with ``all_tenants`` every tenant's own, too."""
        with self._sessions.begin() as session:
            return limits.visible(session, tenant, all_tenants=all_tenants)

    def put_limit(self, tenant: str, kind: LimitKind, name: str, *, actor: str, **bounds: Any) -> Limit:
        """Set a limit for jobs admitted from now on; what is at work goes on and counts.

        Of the tenant or type, jobs that stand in the cheap queue ahead of their turn go back to wait: nothing limited
        them yet. Jobs with a key do not stand there.

        Args:
            name: The tenant, the type, or the key of the caller's own tenant.
            bounds: ``max_concurrency``, ``rate`` and ``period_s``, each or ``None``.
        Raises:
            InvalidRequestError: The bounds bound nothing, or there is no such type.
        """
        if kind is LimitKind.TYPE:
            self._registry.get(name, at="?limited")
        _check_bounds(**bounds)
        whose, called = _key_of(tenant, kind, name)
        with self._sessions.begin() as session:
            if kind is not LimitKind.KEY:
                admission.lock_queue(session, CHEAP_QUEUE)
                admission.give_back(session, CHEAP_QUEUE, tenant=whose, job_type=called, actor=actor, reason="limit")
            before = limits.get(session, whose, kind, called)
            limit = limits.put(session, whose, kind, called, actor=actor, **bounds)
            _record(session, tenant, f"limit {kind} {name}", _said(before), _said(limit), actor=actor)
        self._bell.ring_engine()
        return limit

    def delete_limit(self, tenant: str, kind: LimitKind, name: str, *, actor: str) -> None:
        """Take a limit away.

        Raises:
            NotFoundError: There is none.
        """
        whose, called = _key_of(tenant, kind, name)
        with self._sessions.begin() as session:
            before = limits.get(session, whose, kind, called)
            if before is None:
                raise NotFoundError(f"there is no limit of {kind} {name!r}", code="limit.not_found")
            limits.delete(session, whose, kind, called)
            _record(session, tenant, f"limit {kind} {name}", _said(before), None, actor=actor)
        self._bell.ring_engine()

    def workers(self) -> list[LiveSlot]:
        """Every slot that a worker has, and what it holds."""
        with self._sessions.begin() as session:
            return workers.live(session)

    def set_slots(self, tenant: str, name: str, slots: int, *, actor: str) -> Queue:
        """Give each worker of a queue so many slots; it follows within seconds, and ends no job for it.

        Raises:
            NotFoundError: There is no such queue.
            ConflictError: Its workers have a fixed number.
        """
        self._check_queue(name)
        if name not in GROWING_QUEUES:
            raise ConflictError(
                f"workers of queue {name!r} have a fixed number of slots; those of {', '.join(GROWING_QUEUES)} follow",
                code="workers.fixed",
                hint="Start more worker processes of this queue instead.",
            )
        with self._sessions.begin() as session:
            before = queues.set_slots(session, name, slots)
            _record(session, tenant, f"queue {name} slots", before, slots, actor=actor)
            [queue] = queues.read(session, (name,))
        return queue

    def changes(self, tenant: str, *, limit: int, before: int | None) -> list[Change]:
        """What the tenant's keys changed of queues, limits and workers, newest first."""
        with self._sessions.begin() as session:
            return changes.newest(session, tenant, limit=limit, before=before)

    @staticmethod
    def _check_queue(name: str) -> None:
        if name not in QUEUES:
            raise NotFoundError(f"there is no queue {name!r}; there are {', '.join(QUEUES)}", code="queue.not_found")


def _record(session: Session, tenant: str, what: str, before: Any, after: Any, *, actor: str) -> None:
    if before != after:
        changes.add(session, tenant, actor=actor, what=what, before=before, after=after)


def _key_of(tenant: str, kind: LimitKind, name: str) -> tuple[str, str]:
    """How a limit is stored: whose, and called what."""
    if kind is LimitKind.TENANT:
        return check_tenant(name), ""
    return ("", name) if kind is LimitKind.TYPE else (tenant, name)


def _check_bounds(*, max_concurrency: int | None, rate: int | None, period_s: float | None) -> None:
    if (rate is None) != (period_s is None):
        missing = "rate" if rate is None else "period_s"
        problem = Problem(f"/{missing}", "this field is required with the other")
        raise InvalidRequestError("a rate has a number and a period", problems=(problem,))
    if max_concurrency is None and rate is None:
        raise InvalidRequestError(
            "a limit bounds something",
            problems=(Problem("/max_concurrency", "expected max_concurrency, or rate and period_s, got neither"),),
        )


def _said(limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    return {"max_concurrency": limit.max_concurrency, "rate": limit.rate, "period_s": limit.period_s}
