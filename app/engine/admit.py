"""Admission: due jobs go from waiting to the queue, as far as the queue has room, the tenants in turn."""

from __future__ import annotations

from app.domain.jobs import Priority
from app.engine.leader import Leader
from app.persistence import admission, families, limits
from app.persistence.admission import Lane


def admit(leader: Leader, *, bound: int, places: dict[tuple[str, Priority], Lane] | None = None) -> int:
    """Fill every queue and class up to ``bound`` queued jobs; how many were admitted.

    Args:
        places: Remembers, from one time to the next, from which lane to go on.
    """
    with leader.transaction() as session:
        queues = admission.waiting_queues(session)
    admitted = 0
    for queue in queues:
        with leader.transaction() as session:
            admission.lock_queue(session, queue)
            for priority in Priority:
                admitted += admission.admit(session, queue, priority, bound=bound, places=places)
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
