"""Worker concurrency at run time: a pool follows the number of slots that Postgres says its queue is to have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

FOLLOW_EVERY_S: Final = 5.0


def follow_wanted_slots(app: Celery, pool: Any, wanted: Callable[[], int | None], *, worker: str) -> threading.Thread:
    """Keep a prefork pool as large as it is to be, from now on, in a thread of its own.

    The number stands in Postgres, so it outlives Redis and the worker. The change itself goes through Celery's own
    command to this very worker, which makes it in its main loop; one that Redis lost is sent again.

    Args:
        pool: The worker's pool, for its size.
        wanted: The number; ``None`` when none was asked for, or Postgres is away.
    """
    thread = threading.Thread(target=_follow, args=(app, pool, wanted, worker), name="wanted slots", daemon=True)
    thread.start()
    return thread


def _follow(app: Celery, pool: Any, wanted: Callable[[], int | None], worker: str) -> None:
    pause = threading.Event()
    while not pause.wait(FOLLOW_EVERY_S):
        slots = wanted()
        if slots is not None:
            step(app, pool, slots, worker=worker)


def step(app: Celery, pool: Any, wanted: int, *, worker: str) -> None:
    """Ask the pool for what it lacks or has too much. Only idle processes end; the others are asked for again later."""
    missing = wanted - pool.num_processes
    if missing == 0:
        return
    command = "pool_grow" if missing > 0 else "pool_shrink"
    log.info("worker.resized", extra={"worker": worker, "from": pool.num_processes, "to": wanted})
    try:
        app.control.broadcast(command, arguments={"n": abs(missing)}, destination=[worker])
    except (OperationalError, RedisError) as error:
        log.warning("worker.not_resized", extra={"worker": worker, "error": str(error)})
