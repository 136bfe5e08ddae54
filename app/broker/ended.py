"""Hears on Redis which jobs ended. What is lost there is found by looking: Redis carries no state."""

from __future__ import annotations

import logging
from time import sleep
from typing import Any
from uuid import UUID

import redis

from app.broker.bells import ENDED_CHANNEL, redis_client
from config.settings import Settings

log = logging.getLogger(__name__)


class RedisEnded:
    """The real one, for one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel: Any = None
        self._away = False

    def hear(self, timeout_s: float) -> set[UUID]:
        """Jobs that ended meanwhile; none when the time is over, at the first call, or when Redis is away."""
        try:
            if self._channel is None:
                self._channel = redis_client(self._settings).pubsub()  # type: ignore[no-untyped-call]  # of redis-py
                self._channel.subscribe(ENDED_CHANNEL)
            message = self._channel.get_message(timeout=timeout_s)
        except (redis.RedisError, OSError) as error:
            if not self._away:
                log.warning("bell.lost", extra={"queues": [ENDED_CHANNEL], "error": str(error)})
            self._away = True
            self.close()
            sleep(timeout_s)
            return set()
        self._away = False
        if message is None or message["type"] != "message":
            return set()
        return {UUID(job_id.decode()) for job_id in message["data"].split()}

    def close(self) -> None:
        """Hear no more, until the next ``hear``."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
