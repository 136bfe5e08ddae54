"""Firing: schedules that beat did not have fired in time, and alarms that RedBeat has lost."""

from __future__ import annotations

from app.engine.leader import Leader
from app.persistence import schedules
from app.scheduling.redbeat import RedBeatTimer
from app.services.firing import Firing


def fire_overdue(leader: Leader, firing: Firing) -> int:
    """Fire every schedule that is overdue; how many jobs that made."""
    made = 0
    while True:
        with leader.transaction() as session:
            fired = firing.fire_overdue(session)
        firing.tell(fired)
        made += len(fired.jobs)
        if not fired.schedules:
            return made


def rearm(leader: Leader, timer: RedBeatTimer) -> int:
    """Set the alarms that are missing and take away those of schedules that do not fire; how many there were.

    Raises:
        redis.RedisError: Redis does not answer; the next time tries again.
    """
    armed = timer.armed()
    with leader.transaction() as session:
        wanted = schedules.alarms(session)
        stale = armed.keys() - schedules.known(session, list(armed))
    changes = {schedule: at for schedule, at in wanted.items() if not armed.get(schedule)} | dict.fromkeys(stale)
    if changes:
        timer.arm(changes)
    return len(changes)
