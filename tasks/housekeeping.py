"""What beat starts: jobs of the system, partitions, and schedules. Each is idempotent and may be missed.

Partitions are no job's: were the queue paused, no job could be stored in the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final
from uuid import UUID

from celery import current_app

from app.bootstrap import build_firing
from app.domain.access import DEFAULT_TENANT
from app.domain.clock import SystemClock
from app.domain.job_types import JobType
from app.domain.jobs import Origin, SubmitJob
from app.domain.lifecycle import TERMINAL, JobState
from app.persistence import job_lists, new_jobs
from app.persistence.job_lists import Filters
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.firing import Firing
from app.services.ids import new_id
from app.services.mirrors import Mirrors
from app.services.retention import Retention
from config.process import settings
from tasks.types.housekeeping import JOB_TYPE as HOUSEKEEPING
from tasks.types.housekeeping import Housekeeping
from tasks.types.mirror_changes import JOB_TYPE as MIRROR_CHANGES
from tasks.types.rebuild_mirror import JOB_TYPE as REBUILD

log = logging.getLogger(__name__)

_MOST_ALIKE: Final = 100


@contextmanager
def _sessions() -> Iterator[Sessions]:
    engine = open_engine(
        settings().database_url.get_secret_value(), application_name="haulier housekeeping", pool_size=1
    )
    try:
        yield make_sessions(engine)
    finally:
        engine.dispose()


@cache
def _firing() -> Firing:
    """Kept by the process: schedules may fire every second."""
    engine = open_engine(
        settings().database_url.get_secret_value(), application_name="haulier firing", pool_size=1, pre_ping=True
    )
    return build_firing(settings(), make_sessions(engine))


@current_app.task(name="haulier.fire_schedule", shared=False)
def fire_schedule(*schedule_ids: str) -> None:
    """Fire what is due of schedules and set their next alarms."""
    _firing().fire(*map(UUID, schedule_ids))


@current_app.task(name="haulier.begin_duty", shared=False)
def begin_duty(duty: str) -> None:
    """Make a job of the system for a duty, unless there is one that is not over."""
    with _sessions() as sessions:
        _begin(sessions, DEFAULT_TENANT, HOUSEKEEPING, Housekeeping.model_validate({"duty": duty}).model_dump())


def _begin(sessions: Sessions, tenant: str, kind: JobType, config: dict[str, Any]) -> None:
    request = SubmitJob(tenant, kind.name, config, created_by="system", origin=Origin.SYSTEM)
    alike = Filters(states=tuple(set(JobState) - TERMINAL), types=(kind.name,), origin=Origin.SYSTEM)
    with sessions.begin() as session:
        if any(job.config == config for job in job_lists.find(session, tenant, alike, limit=_MOST_ALIKE)):
            return
        new = new_jobs.new_job(request, job_id=new_id(), queue=kind.queue_for(request), retry=kind.retry)
        new_jobs.add_all(session, [new], room=0)


@current_app.task(name="haulier.keep_mirrors", shared=False)
def keep_mirrors() -> None:
    """Make jobs for what is not in the search mirror yet; without a server, have nothing noted for it any more."""
    with _sessions() as sessions:
        for tenant, table, anew in Mirrors(sessions, settings()).work():
            _begin(sessions, tenant, REBUILD if anew else MIRROR_CHANGES, {"table": table})


@current_app.task(name="haulier.keep_partitions", shared=False)
def keep_partitions() -> None:
    """Make the partitions of the coming weeks; drop those of jobs that are past their time."""
    with _sessions() as sessions:
        retention = Retention(sessions, SystemClock(), days=settings().job_retention_days)
        made, dropped = retention.prepare(), retention.drop_old()
    log.info("partitions.kept", extra={"made": [p.suffix for p in made], "dropped": [p.suffix for p in dropped]})
