"""Ringing: each tick, as many bells as there are queued jobs and free slots that no bell has been rung for."""

from __future__ import annotations

from typing import Any

from app.broker.bells import bells_waiting
from app.domain.ports import Bell
from app.persistence import workers
from app.persistence.sessions import Sessions, SingleStatements


def ring(sessions: Sessions | SingleStatements, bell: Bell, redis: Any) -> int:
    """Ring for work that has no bell, which is what brings back bells that Redis lost; how many were rung.

    Raises:
        redis.RedisError: Redis does not answer; the next tick tries again.
    """
    with sessions.begin() as session:
        loads = [load for load in workers.loads(session) if load.queued and load.slots > load.busy]
    if not loads:
        return 0
    waiting = bells_waiting(redis, [load.queue for load in loads])
    rung = 0
    for load in loads:
        missing = min(load.queued, load.slots - load.busy) - waiting[load.queue]
        if missing > 0:
            bell.ring(load.queue, missing)
            rung += missing
    return rung
