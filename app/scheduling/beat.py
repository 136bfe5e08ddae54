"""Beat's scheduler: RedBeat's, but for alarms of one instant, which travel together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis

from app.scheduling.redbeat import ALARM, ALARM_OPTIONS, ALARMS_AT_ONCE, FIRE_TASK


class AlarmScheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """RedBeat loads, sends and sets back entry by entry, which takes seconds for a thousand of them."""

    def tick(self, **options: Any) -> float:
        """Send what is due; how many seconds to sleep."""
        self.send_alarms()
        interval_s: float = super().tick(**options)
        return interval_s

    def send_alarms(self) -> None:
        """Send every alarm that is due, and let it rest until its schedule's fire sets it anew."""
        conf, client = self.app.redbeat_conf, get_redis(self.app)
        prefix = f"{conf.key_prefix}{ALARM}"
        due = client.zrangebyscore(conf.schedule_key, 0, datetime.now(UTC).timestamp())
        alarms = [key for key in due if key.startswith(prefix)]
        for start in range(0, len(alarms), ALARMS_AT_ONCE):
            some = alarms[start : start + ALARMS_AT_ONCE]
            # Before they are sent: what the fire sets must stay. An alarm that is lost in between is the engine's.
            client.zadd(conf.schedule_key, dict.fromkeys(some, -1), xx=True)
            ids = [key.removeprefix(prefix) for key in some]
            self.send_task(FIRE_TASK, ids, {}, producer=self.producer, **ALARM_OPTIONS)
