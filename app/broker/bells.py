"""Bells: Celery messages on Redis that say "there may be work in this queue", and the engine's own wake-up.

A bell carries no state, so losing one costs a tick and ringing one twice costs an empty claim. One background thread
sends them with short time-outs behind a breaker: a request that rings never waits for Redis.
"""

from __future__ import annotations

import logging
import queue
import threading
from time import monotonic
from typing import Any, Final

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from config.celery import celery_config
from config.settings import Settings

log = logging.getLogger(__name__)

TASK: Final = "haulier.work"
ENGINE_LIST: Final = "haulier:engine"
SEND_TIMEOUT_S: Final = 0.2
BREAKER_S: Final = 1.0
_PENDING_BELLS: Final = 10_000


def redis_client(settings: Settings, *, timeout_s: float = SEND_TIMEOUT_S) -> redis.Redis:
    """A client that gives up after ``timeout_s``."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        health_check_interval=5,
    )


def broker_app(settings: Settings) -> Celery:
    """A Celery app that only sends; it leaves the process's current app alone."""
    app = Celery("haulier.bells", set_as_current=False)
    app.config_from_object(celery_config(settings))
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": SEND_TIMEOUT_S,
        "socket_connect_timeout": SEND_TIMEOUT_S,
    }
    return app


class CeleryBell:
    """The real bell. ``close`` ends its thread after what is pending was tried once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pending: queue.Queue[tuple[str | None, int] | None] = queue.Queue(_PENDING_BELLS)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def ring(self, queue: str, times: int = 1) -> None:
        """Wake up to ``times`` workers of ``queue``, soon."""
        self._put((queue, times))

    def ring_engine(self) -> None:
        """Wake the engine, soon."""
        self._put((None, 1))

    def _put(self, bell: tuple[str | None, int] | None) -> None:
        with self._lock:
            # Started at the first ring, because a thread does not survive the fork of a web or pool process.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send_all, name="bells", daemon=True)
                self._thread.start()
        try:
            self._pending.put_nowait(bell)
        except queue.Full:
            log.warning("bell.dropped", extra={"queue": bell[0] if bell else None})

    def close(self) -> None:
        """Try what is pending, then stop."""
        if self._thread is not None and self._thread.is_alive():
            self._put(None)
            self._thread.join(timeout=5 * SEND_TIMEOUT_S)

    def _send_all(self) -> None:
        app, client = broker_app(self._settings), redis_client(self._settings)
        while (bell := self._pending.get()) is not None:
            if monotonic() < self._silent_until:
                continue
            try:
                self._send(app, client, *bell)
            except (redis.RedisError, OperationalError, OSError) as error:
                self._silent_until = monotonic() + BREAKER_S
                log.warning("bell.lost", extra={"queue": bell[0], "error": str(error)})

    def _send(self, app: Celery, client: Any, queue_name: str | None, times: int) -> None:
        if queue_name is None:
            ring_engine(client)
            return
        with app.producer_pool.acquire(block=True, timeout=1) as producer:
            for _ in range(times):
                app.send_task(TASK, args=[queue_name], queue=queue_name, producer=producer, ignore_result=True)


def ring_engine(client: redis.Redis) -> None:
    """One wake-up is enough: the list never holds more than one."""
    pipe = client.pipeline(transaction=False)
    pipe.lpush(ENGINE_LIST, "1")
    pipe.ltrim(ENGINE_LIST, 0, 0)
    pipe.execute()


def bells_waiting(client: redis.Redis, queues: list[str]) -> dict[str, int]:
    """Bells of each queue that no worker has heard yet."""
    pipe = client.pipeline(transaction=False)
    for name in queues:
        pipe.llen(name)
    return dict(zip(queues, pipe.execute(), strict=True))
