"""Alarms in RedBeat: one entry per schedule, which beat sends once and which the schedule's fire sets anew.

RedBeat keeps no zones, no years and no unions, so it is told single instants. An entry is a rule with a count of one:
after beat has sent it, it rests until it is set again. Its message may be lost, doubled or late, because ``Firing``
asks Postgres what is due.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any, Final
from uuid import UUID

import redis
from celery import Celery
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf
from redbeat.schedules import rrule

from config.celery import HOUSEKEEPING_QUEUE, celery_config
from config.settings import Settings

log = logging.getLogger(__name__)

FIRE_TASK: Final = "haulier.fire_schedule"
TIMEOUT_S: Final = 0.5
BREAKER_S: Final = 1.0
EXPIRES_S: Final = 10.0
"""A worker drops a message older than this: by then the engine has fired the schedule."""
ALARM: Final = "schedule:"
"""What the name of a schedule's entry begins with."""
ALARMS_AT_ONCE: Final = 250
ALARM_OPTIONS: Final = {"queue": HOUSEKEEPING_QUEUE, "expires": EXPIRES_S}


class RedBeatTimer:
    """The real timer. One background thread writes the alarms, so that no request waits for Redis."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = Celery("haulier.alarms", set_as_current=False)
        self._app.config_from_object(celery_config(settings))
        self._conf = ensure_conf(self._app)
        self._wanted: dict[UUID, datetime | None] = {}
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._writing = False

    def arm(self, alarms: Mapping[UUID, datetime | None]) -> None:
        """Set the alarms, soon; the latest word about a schedule counts."""
        with self._wake:
            self._wanted.update(alarms)
            # Started at the first alarm, because a thread does not survive the fork of a web or pool process.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._write_all, name="alarms", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until every alarm was written or given up; whether it came to that in time."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._wanted and not self._writing, timeout_s)

    def armed(self) -> dict[UUID, bool]:
        """The schedules that RedBeat has an entry for, each with whether it will be sent.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        client = self._client()
        try:
            entries: Any = client.zrange(self._conf.schedule_key, 0, -1, withscores=True)
        finally:
            client.close()
        prefix = self._key("")
        return {UUID(key[len(prefix) :]): score >= 0 for key, score in entries if key.startswith(prefix)}

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._settings.redis_url.get_secret_value(),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            decode_responses=True,
        )

    def _key(self, name: object) -> str:
        key: str = RedBeatSchedulerEntry.generate_key(self._app, f"{ALARM}{name}")
        return key

    def _write_all(self) -> None:
        client = self._client()
        while True:
            with self._wake:
                while not self._wanted:
                    self._wake.wait()
                wanted, self._wanted = self._wanted, {}
                self._writing = True
            try:
                self._write(client, wanted.items())
            except (redis.RedisError, OSError) as error:
                # The engine sets again what is missing.
                log.warning("alarm.lost", extra={"schedules": len(wanted), "error": str(error)})
                sleep(BREAKER_S)
            finally:
                with self._wake:
                    self._writing = False
                    self._wake.notify_all()

    def _write(self, client: redis.Redis, alarms: Iterable[tuple[UUID, datetime | None]]) -> None:
        now = datetime.now(UTC)
        pipe = client.pipeline(transaction=True)
        for schedule_id, at in alarms:
            key = self._key(schedule_id)
            if at is None:
                pipe.zrem(self._conf.schedule_key, key)
                pipe.delete(key)
            else:
                # RedBeat counts whole seconds; an alarm before its instant would find nothing due.
                second = math.ceil(max(at, now).timestamp())
                pipe.hset(key, mapping=self._entry(schedule_id, datetime.fromtimestamp(second, UTC)))
                pipe.zadd(self._conf.schedule_key, {key: second})
        pipe.execute()

    def _entry(self, schedule_id: UUID, at: datetime) -> dict[Any, Any]:
        """An entry as ``RedBeatSchedulerEntry`` reads it, in one round trip instead of two."""
        definition: dict[str, Any] = {
            "name": f"{ALARM}{schedule_id}",
            "task": FIRE_TASK,
            "args": [str(schedule_id)],
            "kwargs": {},
            "options": ALARM_OPTIONS,
            "schedule": rrule("SECONDLY", dtstart=at, count=1, app=self._app),
            "enabled": True,
        }
        meta = {"last_run_at": at - timedelta(seconds=1)}
        return {
            "definition": json.dumps(definition, cls=RedBeatJSONEncoder),
            "meta": json.dumps(meta, cls=RedBeatJSONEncoder),
        }
