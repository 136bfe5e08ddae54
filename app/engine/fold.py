"""Folding: ends of jobs become counts of their parents, releases of those that waited, and ends of families.

A child's end only writes its event, in a transaction of its own. Here each event is numbered once, by one leader, and
in the same transaction everything that hangs on it is done; so a count is never lost and never doubled, and no worker
waits for a lock of its siblings. Locks go parent first, then children.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.families import Kind, OnFailure, ending
from app.domain.jobs import Job
from app.domain.lifecycle import TERMINAL, Event, JobState
from app.engine import extend, stages
from app.engine.leader import Leader
from app.persistence import families, jobs, needs, numbering
from app.persistence.families import Family
from app.persistence.jobs import NOW
from app.persistence.numbering import Ended

EVENTS_AT_ONCE: Final = 2000
PARENTS_AT_ONCE: Final = 100
_CHILDREN: Final = {Kind.BATCH: "payloads", Kind.PIPELINE: "stages"}


def fold(leader: Leader, *, rounds: int = 10) -> int:
    """Number events and do what hangs on them; how many there were.

    What is done here writes events of its own (a released child, a parent's end), which are numbered next. Other duties
    wait meanwhile, so what is left after ``rounds`` is left to the next tick.
    """
    total = 0
    for _ in range(rounds):
        with leader.transaction() as session:
            events, ended = numbering.number(session, most=EVENTS_AT_ONCE)
            _hand_on(session, ended)
        total += events
        if events < EVENTS_AT_ONCE and not ended:
            break
    return total


def begin_families(leader: Leader) -> int:
    """Start the parents that are due: they run from now on, without a worker. How many there were."""
    with leader.transaction() as session:
        due = families.due(session, most=PARENTS_AT_ONCE)
        for parent in due:
            changes = {"started_at": NOW, "progressed_at": NOW, "run_after": None}
            jobs.move(session, parent.tenant, parent.id, Event.EXPAND, actor="engine", changes=changes)
            _go_on(session, parent, families.fold(session, parent.id, {}))
    return len(due)


def stir(leader: Leader) -> int:
    """Look at the families that have children no end will release: added ones, resumed ones. How many there were."""
    with leader.transaction() as session:
        stirred = families.stirred(session)
        for parent_id in stirred:
            parent = families.lock(session, parent_id)
            if parent is not None and parent.state is JobState.RUNNING:
                _go_on(session, parent, families.fold(session, parent_id, {}))
    return len(stirred)


def _hand_on(session: Session, ended: Sequence[Ended]) -> None:
    parents = {id_: families.lock(session, id_) for id_ in sorted({end.parent_id for end in ended if end.parent_id})}
    _extend(session, ended, parents)
    ended = [end for end in ended if not _is_run_again(session, end, parents)]
    needed = [end.job_id for end in ended if end.is_needed and end.target in TERMINAL]
    released = needs.release(session, needed) if needed else needs.Released()
    for tenant, stopped in released.stopped:
        families.cancel_children(session, tenant, stopped, actor="engine", reason="skipped")
    parents |= {parent: families.lock(session, parent) for parent in sorted(released.parents - parents.keys())}
    changes = _counted(ended)
    for parent_id, parent in parents.items():
        family = families.fold(session, parent_id, changes.get(parent_id, {}))
        if parent is not None and parent.state is JobState.RUNNING:
            _go_on(session, parent, family)


def _extend(session: Session, ended: Sequence[Ended], parents: Mapping[UUID, Job | None]) -> None:
    for end in ended:
        parent = parents.get(end.parent_id) if end.extends and end.parent_id else None
        if parent is not None:
            extend.extend(session, parent, end.job_id)


def _is_run_again(session: Session, end: Ended, parents: Mapping[UUID, Job | None]) -> bool:
    parent = parents.get(end.parent_id) if end.parent_id else None
    return parent is not None and stages.rerun(session, parent, end)


def _counted(ended: Sequence[Ended]) -> dict[UUID, Counter[JobState]]:
    changes: dict[UUID, Counter[JobState]] = {}
    for end in ended:
        if end.parent_id is not None:
            counted = changes.setdefault(end.parent_id, Counter())
            if end.target in TERMINAL:
                counted[end.target] += 1
            if end.source in TERMINAL:
                counted[end.source] -= 1
    return changes


def _go_on(session: Session, parent: Job, family: Family) -> None:
    """Open the next children or end the parent; one that is paused opens nothing.

    After a failure that stops the others, those are opened that have begun and wait for another attempt.
    """
    if family.failed and family.on_failure is not OnFailure.CONTINUE:
        families.skip_children(session, parent.tenant, parent.id)
    if not parent.paused:
        if family.kind is Kind.PIPELINE:
            stages.fill_in(session, parent)
        families.release(session, parent.id, window=family.max_concurrency)
    families.report(session, parent.id)
    _end_if_over(session, parent, family)


def _end_if_over(session: Session, parent: Job, family: Family) -> None:
    over = ending(
        total=family.total,
        completed=family.completed,
        failed=family.failed,
        cancelled=family.cancelled,
        on_failure=family.on_failure,
    )
    if over is None:
        return
    counts: dict[str, Any] = {name: getattr(family, name) for name in ("total", "completed", "failed", "cancelled")}
    result = counts
    if family.kind is Kind.PIPELINE:
        result = {**stages.came_to(session, parent), **counts}
    if over.outcome is not None:
        changes = {"result": result, "outcome": over.outcome, "error": None}
        jobs.move(session, family.tenant, family.job_id, Event.COMPLETE, actor="engine", changes=changes)
    else:
        error = {
            "code": "family.failed",
            "message": f"{family.failed} of {family.total} {_CHILDREN[family.kind]} failed",
            "data": counts,
        }
        changes = {"result": result, "error": error}
        jobs.move(session, family.tenant, family.job_id, Event.FAIL, actor="engine", changes=changes)
