"""The use cases of schedules: make, read, change, pause, trigger, preview. What fires them is ``Firing``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.domain import calendars
from app.domain.calendars import Recurrence
from app.domain.errors import ConflictError, InvalidRequestError, PreconditionFailedError
from app.domain.jobs import Job
from app.domain.ports import Timer
from app.domain.schedules import Schedule
from app.persistence import families, job_lists, pausing, schedules
from app.persistence.job_lists import Filters
from app.persistence.sessions import Sessions
from app.services.firing import Fired, Firing
from app.services.ids import new_id
from app.services.templates import Templates

_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Preview:
    """What rules mean: in words, and their next instants, each with what a clock in the zone shows then."""

    words: str
    timezone: str
    fires: list[tuple[datetime, datetime]]


class Schedules:
    """The use cases of schedules."""

    def __init__(self, sessions: Sessions, templates: Templates, firing: Firing, timer: Timer) -> None:
        self._sessions = sessions
        self._templates = templates
        self._firing = firing
        self._timer = timer

    def create(self, tenant: str, body: dict[str, Any], *, actor: str) -> Schedule:
        """A new schedule; it fires from now on.

        Args:
            body: ``name``, ``template`` (what ``Templates`` checks), ``rules`` as sent, policies, ``paused``.
        Raises:
            InvalidRequestError: A template or rules that cannot be used; one problem per fault.
        """
        given = {**body, **self._read(tenant, body, actor=actor)}
        schedule = Schedule(id=new_id(), tenant=tenant, created_by=actor, created_at=_NEVER, updated_at=_NEVER, **given)
        with self._sessions.begin() as session:
            following = schedule.rules.next_after(schedules.now(session))
            schedule = schedules.add(session, replace(schedule, next_fire_at=following))
        self._timer.arm({schedule.id: schedule.alarm_at})
        return schedule

    def get(self, tenant: str, schedule_id: UUID) -> Schedule:
        """One schedule; NotFoundError when the tenant has none of this id."""
        with self._sessions.begin() as session:
            return schedules.get(session, tenant, schedule_id)

    def find(self, tenant: str, *, limit: int, before: UUID | None = None) -> list[Schedule]:
        """The tenant's schedules, newest first."""
        with self._sessions.begin() as session:
            return schedules.find(session, tenant, limit=limit, before=before)

    def update(
        self, tenant: str, schedule_id: UUID, body: dict[str, Any], *, actor: str, versions: frozenset[str] | None
    ) -> Schedule:
        """Change what ``body`` names; jobs that were made stay as they are, and what is due by now fires as it was.

        Args:
            versions: Change it only while it is at one of these; ``None`` for whatever it is at.
        Raises:
            InvalidRequestError: As ``create``.
            PreconditionFailedError: It has changed since.
        """
        given = {**body, **self._read(tenant, body, actor=actor)}
        with self._sessions.begin() as session:
            schedule = self._locked(session, tenant, schedule_id, versions)
            fired = self._firing.fire_locked(session, [schedule])
            changed = replace(schedule, next_fire_at=_following(fired, schedule), **given)
            if changed.rules != schedule.rules:
                changed = replace(changed, next_fire_at=changed.rules.next_after(schedules.now(session)))
            changed = schedules.change(session, changed)
        self._tell(fired, changed)
        return changed

    def delete(self, tenant: str, schedule_id: UUID, *, versions: frozenset[str] | None) -> None:
        """Forget a schedule; its jobs stay and go on."""
        with self._sessions.begin() as session:
            self._locked(session, tenant, schedule_id, versions)
            schedules.delete(session, tenant, schedule_id)
        self._timer.arm({schedule_id: None})

    def pause(self, tenant: str, schedule_id: UUID, *, actor: str, runs: bool) -> Schedule:
        """Stop a schedule from firing; with ``runs`` its jobs that are not over are paused too."""
        with self._sessions.begin() as session:
            schedule = schedules.get(session, tenant, schedule_id, lock=True)
            if not schedule.paused:
                schedule = schedules.change(session, replace(schedule, paused=True))
            if runs:
                self._pause_runs(session, tenant, schedule_id, paused=True, actor=actor)
        self._timer.arm({schedule_id: None})
        return schedule

    def resume(self, tenant: str, schedule_id: UUID, *, actor: str, runs: bool) -> Schedule:
        """Let a schedule fire again, what it missed by its policy; with ``runs`` its paused jobs go on."""
        with self._sessions.begin() as session:
            schedule = schedules.get(session, tenant, schedule_id, lock=True)
            if schedule.paused:
                schedule = schedules.change(session, replace(schedule, paused=False))
            fired = self._firing.fire_locked(session, [schedule])
            if runs:
                self._pause_runs(session, tenant, schedule_id, paused=False, actor=actor)
        schedule = replace(schedule, next_fire_at=_following(fired, schedule))
        self._tell(fired, schedule)
        self._firing.ring_engine()
        return schedule

    def trigger(self, tenant: str, schedule_id: UUID, *, actor: str) -> Job:
        """Make a job now, whatever the rules and the overlap say; the timetable stays as it is.

        Raises:
            ConflictError: ``schedule.paused``.
        """
        with self._sessions.begin() as session:
            schedule = schedules.get(session, tenant, schedule_id, lock=True)
            if schedule.paused:
                raise ConflictError(
                    f"schedule {schedule_id} is paused",
                    code="schedule.paused",
                    hint="Resume it first.",
                    data={"paused": True},
                )
            job = self._firing.make(session, schedule, created_by=actor)
            schedules.add_trigger(session, schedule.id, job.id)
        self._firing.tell(Fired(1, [job], {}))
        return job

    def jobs_of(self, tenant: str, schedule_id: UUID, *, limit: int, before: UUID | None = None) -> list[Job]:
        """The jobs that a schedule made, newest first."""
        with self._sessions.begin() as session:
            schedules.get(session, tenant, schedule_id)
            return job_lists.find(session, tenant, Filters(schedule_id=schedule_id), limit=limit, before=before)

    def preview(self, rules: object, count: int) -> Preview:
        """The next ``count`` fires of rules as they were sent; InvalidRequestError when they cannot be used."""
        return self._preview(calendars.parse({} if rules is None else rules), count)

    def preview_of(self, tenant: str, schedule_id: UUID, count: int) -> Preview:
        """The next ``count`` fires of a schedule, as if it were not paused."""
        return self._preview(self.get(tenant, schedule_id).rules, count)

    def _preview(self, rules: Recurrence, count: int) -> Preview:
        with self._sessions.begin() as session:
            now = schedules.now(session)
        zone = ZoneInfo(rules.timezone)
        fires = [(instant, instant.astimezone(zone)) for instant in rules.upcoming(now, count)]
        return Preview(rules.words(), rules.timezone, fires)

    @staticmethod
    def _pause_runs(session: Session, tenant: str, schedule_id: UUID, *, paused: bool, actor: str) -> None:
        """Pause or resume the jobs it has made: parents first, then their children."""
        for owner in ("schedule", "schedule of the parent"):
            pausing.pause_all(session, tenant, owner, schedule_id, paused=paused, running=True, actor=actor)
        if not paused:
            families.touch_all(session, schedule_id)

    def _tell(self, fired: Fired, schedule: Schedule) -> None:
        self._firing.tell(replace(fired, alarms={schedule.id: schedule.alarm_at}))

    @staticmethod
    def _locked(session: Session, tenant: str, schedule_id: UUID, versions: frozenset[str] | None) -> Schedule:
        schedule = schedules.get(session, tenant, schedule_id, lock=True)
        if versions is not None and str(schedule.version) not in versions:
            raise PreconditionFailedError(
                f"schedule {schedule_id} is at version {schedule.version}, If-Match names another",
                code="schedule.changed",
                hint="Read it again and repeat the change on what it is now.",
                data={"version": schedule.version},
            )
        return schedule

    def _read(self, tenant: str, body: dict[str, Any], *, actor: str) -> dict[str, Any]:
        """Template and rules of ``body``, those that it has, checked; faults of both come in one answer."""
        read: dict[str, Any] = {}
        faults: list[InvalidRequestError] = []
        if "rules" in body:
            try:
                read["rules"] = calendars.parse({} if body["rules"] is None else body["rules"])
            except InvalidRequestError as error:
                faults.append(error)
        if "template" in body:
            try:
                read["template"] = self._templates.checked(tenant, body["template"], actor=actor)
            except InvalidRequestError as error:
                faults.append(error)
        if faults:
            first = faults[0]
            problems = tuple(problem for fault in faults for problem in fault.problems)
            raise InvalidRequestError(first.detail, code=first.code, hint=first.hint, problems=problems)
        return read


def _following(fired: Fired, schedule: Schedule) -> datetime | None:
    """The next instant of a schedule that was just fired; a paused one's stands still."""
    return schedule.next_fire_at if schedule.paused else fired.alarms[schedule.id]
