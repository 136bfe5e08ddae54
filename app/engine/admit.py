"""Admission: due jobs go from waiting to the queue, as far as the queue has room, the tenants in turn."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.job_types import CHEAP_QUEUE
from app.domain.jobs import Priority
from app.domain.pacing import Pace
from app.engine.leader import Leader
from app.persistence import admission, families, limits
from app.persistence.admission import Lane


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of each class from one time to the next: from which lane to go on, and how fast jobs go."""

    places: dict[tuple[str, Priority], Lane] = field(default_factory=dict)
    paces: dict[tuple[str, Priority], Pace] = field(default_factory=dict)

    def pace(self, queue: str, priority: Priority, bound: int) -> Pace | None:
        """That of a class of cheap jobs; others are bounded by number alone."""
        return self.paces.setdefault((queue, priority), Pace(bound)) if queue == CHEAP_QUEUE else None


def admit(leader: Leader, *, bound: int, memory: Memory | None = None) -> int:
    """Fill every queue and class up to ``bound`` queued jobs; how many were admitted.

    Args:
        memory: Without it every class is bounded by number, and its lanes are looked at from the first.
    """
    with leader.looking.begin() as session:
        queues = admission.waiting_queues(session)
    admitted = 0
    for queue in queues:
        with leader.transaction() as session:
            if not admission.try_lock_queue(session, queue):
                # Many jobs are being stored, and whoever does that rings.
                continue
            for priority in Priority:
                pace = memory.pace(queue, priority, bound) if memory else None
                places = memory.places if memory else None
                admitted += admission.admit(session, queue, priority, bound=bound, places=places, pace=pace)
    return admitted


def forget_uses(leader: Leader) -> int:
    """Forget admissions that count against no rate any more; how many there were."""
    with leader.transaction() as session:
        return limits.forget_uses(session)


def end_overdue(leader: Leader) -> int:
    """Cancel the jobs whose deadline has passed, parents with their children; how many there were."""
    with leader.transaction() as session:
        ended = admission.end_overdue(session)
        for job in ended:
            if job.queue == families.PARENT_QUEUE:
                families.cancel_children(session, job.tenant, job.id, actor="engine", reason="timeout")
    return len(ended)
