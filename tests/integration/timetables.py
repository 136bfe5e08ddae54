"""Schedules in the test's own thread; what is due is set by moving a schedule's next instant into the past."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.domain.jobs import Job
from app.domain.schedules import Schedule
from app.persistence.sessions import Sessions
from app.services.firing import Firing
from app.services.schedules import Schedules
from app.services.templates import Templates
from config.settings import Settings
from tests.factories import registry
from tests.integration.families import Installation

HOUR = timedelta(hours=1)


class RecordingTimer:
    """A timer that remembers its alarms."""

    def __init__(self) -> None:
        self.alarms: dict[UUID, datetime | None] = {}

    def arm(self, alarms: Mapping[UUID, datetime | None]) -> None:
        self.alarms.update(alarms)


class Timetable(Installation):
    """An installation with schedules that fire every hour, the last time ``ago`` before now."""

    def __init__(self, sessions: Sessions, settings: Settings | None = None) -> None:
        super().__init__(sessions, settings)
        self.timer = RecordingTimer()
        self.firing = Firing(sessions, self.bell, self.timer, queue_bound=100)
        self.templates = Templates(
            self.jobs, self.families, self.pipelines, queue_of=lambda request: registry().get(request.type).queue
        )
        self.schedules = Schedules(sessions, self.templates, self.firing, self.timer)

    def hourly(self, *, ago: timedelta = HOUR / 2, slept: int = 0, **changes: Any) -> Schedule:
        """A schedule whose last ``slept`` + 1 instants are due."""
        last = datetime.now(UTC) - ago
        offset_ms = int(last.timestamp() * 1000) % 3_600_000
        rules = {"intervals": [{"every": "1h", "offset": offset_ms}], **changes.pop("more_rules", {})}
        schedule = self.schedules.create("default", {**a_body(rules=rules), **changes}, actor="test")
        assert schedule.next_fire_at is not None
        return self.put_back(schedule, schedule.next_fire_at - (slept + 1) * HOUR)

    def put_back(self, schedule: Schedule, to: datetime) -> Schedule:
        """Have a schedule's next instant be ``to``."""
        with self.sessions.begin() as session:
            bound = {"id": schedule.id, "at": to}
            session.execute(text("UPDATE schedules SET next_fire_at = :at WHERE id = :id"), bound)
        return self.schedules.get("default", schedule.id)

    def fired(self, schedule: Schedule) -> list[datetime]:
        """The instants that have a job, in order."""
        with self.sessions.begin() as session:
            rows = session.execute(
                text(
                    "SELECT f.fire_at FROM schedule_fires AS f JOIN jobs AS j ON j.id = f.job_id"
                    " WHERE f.schedule_id = :id AND j.schedule_id = :id ORDER BY f.fire_at"
                ),
                {"id": schedule.id},
            )
            return [row.fire_at for row in rows]

    def jobs_of(self, schedule: Schedule) -> list[Job]:
        """Its jobs, oldest first."""
        return self.schedules.jobs_of("default", schedule.id, limit=1000)[::-1]


def a_body(**changes: Any) -> dict[str, Any]:
    """A request for a schedule, as the API hands it on."""
    return {"name": "nightly", "template": {"type": "echo", "config": {}}, "rules": None, **changes}
