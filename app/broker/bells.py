"""Bells: Celery messages on Redis that say "there may be work in this queue", and wake-ups of the engine and of waits.

A bell carries no state, so losing one costs a tick and ringing one twice costs an empty claim. One background thread
sends them with short time-outs behind a breaker: a request that rings never waits for Redis.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from time import sleep
from typing import Final
from uuid import UUID, uuid4

import redis
from celery import Celery

from config.celery import celery_config
from config.settings import Settings

log = logging.getLogger(__name__)

TASK: Final = "haulier.work"
ENGINE_LIST: Final = "haulier:engine"
ENDED_CHANNEL: Final = "haulier:ended"
"""Ids of jobs that ended, with spaces between."""
SEND_TIMEOUT_S: Final = 0.2
BREAKER_S: Final = 1.0
COALESCE_S: Final = 0.001
ENGINE_COALESCE_S: Final = 0.01
"""The engine takes longer than this for a round, and its tick comes anyway."""
_AT_ONCE: Final = 64
_MARK: Final = "00000000-0000-4000-8000-000000000000"


def redis_client(settings: Settings, *, timeout_s: float = SEND_TIMEOUT_S) -> redis.Redis:
    """A client that gives up after ``timeout_s``."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        health_check_interval=5,
    )


class Bells:
    """Celery messages for one queue, written by Celery once and copied with ids of their own.

    A bell differs from the next in its ids alone, so only the first goes through Celery's publishing code (to a queue
    in memory); the others cost one LPUSH each.
    """

    def __init__(self, settings: Settings, queue_name: str) -> None:
        app = Celery("haulier.bells", set_as_current=False)
        in_memory = {"broker_url": "memory://", "broker_transport_options": {}}
        app.config_from_object({**celery_config(settings), **in_memory})
        with app.connection_for_write() as connection:
            producer = app.amqp.Producer(connection)
            app.send_task(
                TASK, args=[queue_name], queue=queue_name, task_id=_MARK, producer=producer, ignore_result=True
            )
            message = producer.channel._get(queue_name)
        message["properties"]["delivery_tag"] = _MARK
        self._template = json.dumps(message)

    def message(self) -> str:
        """A new bell."""
        return self._template.replace(_MARK, str(uuid4()))


class CeleryBell:
    """The real bell. ``close`` ends its thread after what is pending was tried once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted: dict[str | None, int] = {}
        self._ended: list[str] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._bells: dict[str, Bells] = {}

    def ring(self, queue: str, times: int = 1) -> None:
        """Wake up to ``times`` workers of ``queue``, soon."""
        self._want(queue, times)

    def ring_engine(self) -> None:
        """Wake the engine, soon."""
        self._want(None, 1)

    def tell_ended(self, job_ids: Iterable[UUID]) -> None:
        """Wake the requests that wait for these jobs, soon."""
        with self._wake:
            self._ended += map(str, job_ids)
            self._start()
            self._wake.notify()

    def _want(self, queue: str | None, times: int) -> None:
        with self._wake:
            rung_before = self._wanted.get(queue, 0)
            self._wanted[queue] = min(rung_before + times, _AT_ONCE)
            self._start()
            if not rung_before:
                self._wake.notify()

    def _start(self) -> None:
        # At the first ring, because a thread does not survive the fork of a web or pool process.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._send_all, name="bells", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Try what is pending, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=5 * SEND_TIMEOUT_S)

    def _send_all(self) -> None:
        client = redis_client(self._settings)
        while True:
            with self._wake:
                while not (self._wanted or self._ended or self._closing):
                    self._wake.wait()
                if not (self._wanted or self._ended):
                    return
                if not self._is_pressing():
                    self._wake.wait_for(self._is_pressing, ENGINE_COALESCE_S)
                wanted, self._wanted = self._wanted, {}
                ended, self._ended = self._ended, []
            try:
                self._send(client, wanted, ended)
                # Rings of the next moment travel together: a bell that is heard leads to all the work there is.
                sleep(COALESCE_S)
            except (redis.RedisError, OSError) as error:
                log.warning("bell.lost", extra={"queues": sorted(map(str, wanted)), "error": str(error)})
                sleep(0 if self._closing else BREAKER_S)

    def _is_pressing(self) -> bool:
        return bool(self._closing or self._ended) or self._wanted.keys() != {None}

    def _send(self, client: redis.Redis, wanted: dict[str | None, int], ended: list[str]) -> None:
        pipe = client.pipeline(transaction=False)
        if ended:
            pipe.publish(ENDED_CHANNEL, " ".join(ended))
        for queue_name, times in wanted.items():
            if queue_name is None:
                pipe.lpush(ENGINE_LIST, "1")
                pipe.ltrim(ENGINE_LIST, 0, 0)
            else:
                pipe.lpush(queue_name, *(self._bells_of(queue_name).message() for _ in range(times)))
        pipe.execute()

    def _bells_of(self, queue_name: str) -> Bells:
        if queue_name not in self._bells:
            self._bells[queue_name] = Bells(self._settings, queue_name)
        return self._bells[queue_name]


def bells_waiting(client: redis.Redis, queues: list[str]) -> dict[str, int]:
    """Bells of each queue that no worker has heard yet."""
    pipe = client.pipeline(transaction=False)
    for name in queues:
        pipe.llen(name)
    return dict(zip(queues, pipe.execute(), strict=True))
