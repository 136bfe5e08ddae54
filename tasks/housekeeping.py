"""What beat starts: the platform's own clean-up, and schedules. Each is idempotent and may be missed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from uuid import UUID

from celery import current_app

from app.bootstrap import build_firing
from app.domain.clock import SystemClock
from app.persistence import cache as cached_values
from app.persistence import idempotency
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.artifacts import Artifacts
from app.services.firing import Firing
from app.services.leftovers import Leftovers
from app.services.pickers import Pickers
from app.services.retention import Retention
from app.storage.s3 import S3Store
from config.process import settings

log = logging.getLogger(__name__)


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


@current_app.task(name="haulier.prune_idempotency_keys", shared=False)
def prune_idempotency_keys() -> None:
    """Forget idempotency keys past their time."""
    with _sessions() as sessions, sessions.begin() as session:
        pruned = idempotency.prune(session, older_than_s=settings().idempotency_ttl_s)
    log.info("idempotency.pruned", extra={"keys": pruned})


@current_app.task(name="haulier.prune_cache", shared=False)
def prune_cache() -> None:
    """Forget cached values past their time."""
    with _sessions() as sessions, sessions.begin() as session:
        pruned = cached_values.prune(session)
    log.info("cache.pruned", extra={"values": pruned})


@current_app.task(name="haulier.remove_expired_artifacts", shared=False)
def remove_expired_artifacts() -> None:
    """Delete the files of artifacts past their time; their rows say that they are expired."""
    with _sessions() as sessions:
        removed = Artifacts(sessions, S3Store(settings()), settings(), SystemClock()).remove_expired()
    log.info("artifacts.expired", extra={"artifacts": removed})


@current_app.task(name="haulier.remove_leftovers", shared=False)
def remove_leftovers() -> None:
    """Remove what uploads and exports that broke off have left."""
    with _sessions() as sessions:
        leftovers = Leftovers(sessions, S3Store(settings()), settings(), SystemClock())
        removed = {
            "uploads": leftovers.end_abandoned_uploads(),
            "parts": leftovers.drop_orphaned_parts(),
            "exports": leftovers.remove_given_up_exports(),
        }
    log.info("leftovers.removed", extra=removed)


@current_app.task(name="haulier.gather_picker_values", shared=False)
def gather_picker_values() -> None:
    """Gather values for pickers from the rows that were written since."""
    with _sessions() as sessions:
        tables = Pickers(sessions).gather_all()
    log.info("pickers.gathered", extra={"tables": tables})


@current_app.task(name="haulier.keep_partitions", shared=False)
def keep_partitions() -> None:
    """Make the partitions of the coming weeks; drop those of jobs that are past their time."""
    with _sessions() as sessions:
        retention = Retention(sessions, SystemClock(), days=settings().job_retention_days)
        made, dropped = retention.prepare(), retention.drop_old()
    log.info("partitions.kept", extra={"made": [p.suffix for p in made], "dropped": [p.suffix for p in dropped]})
