"""Rescue: a slot whose lease lapsed loses its database sessions and then its jobs."""

from __future__ import annotations

import logging

from app.engine.leader import Leader
from app.persistence import workers
from app.services.runs import give_back

log = logging.getLogger(__name__)


def rescue(leader: Leader, *, max_rescues: int) -> int:
    """Give back the jobs of lost slots; how many there were.

    The sessions are ended first: a stopped worker keeps the row locks of its open batch, and the rescue would wait for
    them; or those of a claim, its slot among them.
    """
    with leader.transaction() as session:
        lapsed = workers.lapsed(session)
        for slot in lapsed:
            workers.terminate_backends(session, slot)
    rescued = 0
    for slot in lapsed:
        with leader.transaction() as session:
            if not workers.is_lapsed(session, slot):
                continue
            jobs = workers.jobs_of(session, slot)
            for job in jobs:
                give_back(
                    session,
                    job,
                    "its worker's lease lapsed",
                    actor="engine",
                    max_rescues=max_rescues,
                    held_alone=len(jobs) == 1,
                )
            workers.forget(session, slot)
        rescued += len(jobs)
        log.warning("engine.rescued", extra={"slot": str(slot), "jobs": [str(job.id) for job in jobs]})
    return rescued
