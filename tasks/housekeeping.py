"""What beat starts: the platform's own clean-up. Each is idempotent and may be missed."""

from __future__ import annotations

import logging

from celery import current_app

from app.persistence import idempotency
from app.persistence.sessions import make_sessions, open_engine
from config.process import settings

log = logging.getLogger(__name__)


@current_app.task(name="haulier.prune_idempotency_keys", shared=False)
def prune_idempotency_keys() -> None:
    """Forget idempotency keys past their time."""
    engine = open_engine(
        settings().database_url.get_secret_value(), application_name="haulier housekeeping", pool_size=1
    )
    with make_sessions(engine).begin() as session:
        pruned = idempotency.prune(session, older_than_s=settings().idempotency_ttl_s)
    engine.dispose()
    log.info("idempotency.pruned", extra={"keys": pruned})
