"""Firing: schedules that are due make their jobs, each instant once, whoever asks and however often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.calendars import OverlapPolicy
from app.domain.jobs import Job, OnDependencyFailure, SubmitJob
from app.domain.lifecycle import TERMINAL, JobState
from app.domain.ports import Bell, Timer
from app.domain.schedules import JOBS_AT_ONCE, Due, Fire, Schedule, Template, due, placed
from app.persistence import needs, new_jobs, schedules
from app.persistence.new_jobs import NewJob
from app.persistence.sessions import Sessions
from app.services.founding import found
from app.services.ids import new_id

OVERDUE_S: Final = 2.0
"""A fire this late is nobody's any more: the engine does it."""
SCHEDULES_AT_ONCE: Final = 250


@dataclass(frozen=True, slots=True)
class Fired:
    """What a transaction fired: told to the workers and the timer after its commit.

    Args:
        schedules: How many were looked at.
        alarms: When each of them is to be woken again; ``None`` for never.
    """

    schedules: int
    jobs: list[Job]
    alarms: dict[UUID, datetime | None]


class Firing:
    """Fires schedules. All that fire one stand in line at its row, and time is the database's.

    Args:
        queue_bound: Jobs that may stand admitted per queue and class.
    """

    def __init__(self, sessions: Sessions, bell: Bell, timer: Timer, *, queue_bound: int) -> None:
        self._sessions = sessions
        self._bell = bell
        self._timer = timer
        self._room = queue_bound // 2

    def fire(self, *schedule_ids: UUID) -> int:
        """Fire what is due of schedules, and have them woken for their next instants; how many jobs that made.

        May be called at any time and by any number at once. A schedule that is gone loses its alarm.
        """
        with self._sessions.begin() as session:
            locked = {schedule.id: schedule for schedule in schedules.lock(session, schedule_ids)}
            fired = self.fire_locked(session, list(locked.values()))
        gone: dict[UUID, datetime | None] = dict.fromkeys(set(schedule_ids) - locked.keys())
        self.tell(replace(fired, alarms=fired.alarms | gone))
        left = locked.keys() - fired.alarms.keys()
        return len(fired.jobs) + (self.fire(*left) if left else 0)

    def fire_overdue(self, session: Session) -> Fired:
        """Fire schedules that nobody has fired in time, up to ``SCHEDULES_AT_ONCE`` of them; ``tell`` it after."""
        locked = schedules.lock_overdue(session, late_s=OVERDUE_S, most=SCHEDULES_AT_ONCE)
        return self.fire_locked(session, locked)

    def fire_locked(self, session: Session, locked: Sequence[Schedule]) -> Fired:
        """Fire what is due of schedules whose rows are locked; ``tell`` it after the commit."""
        if not locked:
            return Fired(0, [], {})
        now = schedules.now(session)
        dues = _within_bound(locked, now)
        locked = [schedule for schedule in locked if schedule.id in dues]
        fires = self._placed(session, locked, dues)
        fresh = schedules.add_fires(session, fires) if fires else set()
        jobs = self._make(session, [fire for fire in fires if fire.job_id in fresh], now)
        moved = {one.id: dues[one.id].next_fire_at for one in locked if dues[one.id].next_fire_at != one.next_fire_at}
        if moved:
            schedules.advance(session, moved)
        alarms = {one.id: None if one.paused else dues[one.id].next_fire_at for one in locked}
        return Fired(len(locked), jobs, alarms)

    def tell(self, fired: Fired) -> None:
        """Ring for what was made and set the alarms; neither waits for Redis."""
        for queue, times in Counter(job.queue for job in fired.jobs if job.state is JobState.QUEUED).items():
            self._bell.ring(queue, times)
        if any(job.state is JobState.OPEN and job.run_after is None for job in fired.jobs):
            self._bell.ring_engine()
        if fired.alarms:
            self._timer.arm(fired.alarms)

    def ring_engine(self) -> None:
        """Have the engine look at what waits, now."""
        self._bell.ring_engine()

    def make(self, session: Session, schedule: Schedule, *, created_by: str) -> Job:
        """The job of a trigger."""
        return self._add(session, schedule.template, _new(schedule, schedule.request(created_by=created_by), new_id()))

    @staticmethod
    def _placed(session: Session, locked: Sequence[Schedule], dues: Mapping[UUID, Due]) -> list[Fire]:
        picky = [one.id for one in locked if one.overlap_policy is not OverlapPolicy.ALLOW and dues[one.id].instants]
        active = schedules.active(session, picky) if picky else {}
        fires = []
        for schedule in locked:
            instants = dues[schedule.id].instants
            running, waiting = active.get(schedule.id, ([], 0))
            ids = [new_id() for _ in instants]
            fires += placed(schedule, instants, ids, running=running, waiting=waiting)
        return fires

    def _make(self, session: Session, fires: Sequence[Fire], now: datetime) -> list[Job]:
        alone = [fire for fire in fires if not fire.waits_for and not fire.schedule.template.plan]
        new = [_new(fire.schedule, fire.request(now), fire.job_id) for fire in alone]
        made = new_jobs.add_all(session, new, room=self._room) if new else []
        others = [fire for fire in fires if fire.waits_for or fire.schedule.template.plan]
        return made + [self._make_one(session, fire, now) for fire in others]

    def _make_one(self, session: Session, fire: Fire, now: datetime) -> Job:
        """A family, or a job that waits for earlier ones of its schedule, however these end."""
        schedule = fire.schedule
        states = needs.lock(session, schedule.tenant, fire.waits_for) if fire.waits_for else {}
        left = sum(state not in TERMINAL for state in states.values())
        job = self._add(session, schedule.template, _new(schedule, fire.request(now), fire.job_id, needs_left=left))
        if states:
            needs.add(session, [(job.id, needed, state in TERMINAL) for needed, state in states.items()])
        return job

    def _add(self, session: Session, template: Template, new: NewJob) -> Job:
        if template.plan:
            return found(session, new, template.plan)
        [job] = new_jobs.add_all(session, [new], room=self._room)
        return job


def _within_bound(locked: Sequence[Schedule], now: datetime) -> dict[UUID, Due]:
    """What is due of the schedules, of as many of them as one transaction has room for and of one at least."""
    dues: dict[UUID, Due] = {}
    jobs = 0
    for schedule in locked:
        its = due(schedule, now)
        jobs += len(its.instants) * schedule.template.size
        if dues and jobs > JOBS_AT_ONCE:
            break
        dues[schedule.id] = its
    return dues


def _new(schedule: Schedule, request: SubmitJob, job_id: UUID, *, needs_left: int = 0) -> NewJob:
    template = schedule.template
    waiting = replace(request, on_dependency_failure=OnDependencyFailure.RUN)
    return new_jobs.new_job(
        waiting,
        job_id=job_id,
        queue=template.queue,
        retry=template.retry,
        needs_left=needs_left,
        name=template.name,
    )
