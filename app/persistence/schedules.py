"""Statements on schedules: their rows, the fires that they have had, and the jobs of theirs that are not over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.calendars import MissedPolicy, OverlapPolicy, Recurrence, parse
from app.domain.errors import NotFoundError
from app.domain.schedules import Fire, Schedule, Template

_COLUMNS: Final = """
    id, tenant, name, template, CAST(rules AS text) AS rules, missed_policy, missed_window_s, overlap_policy, paused,
    version, next_fire_at, created_by, created_at, updated_at
"""
_ACTIVE: Final = "state IN ('blocked', 'open', 'queued', 'running', 'retry_wait')"


@lru_cache(maxsize=4096)
def _recurrence(rules: str) -> Recurrence:
    # Of a thousand schedules that fire every second, none changes its rules from one to the next.
    return parse(json.loads(rules))


def _to_schedule(row: Row[Any]) -> Schedule:
    return Schedule(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        template=Template.from_json(row.template),
        rules=_recurrence(row.rules),
        missed_policy=MissedPolicy(row.missed_policy),
        missed_window_s=row.missed_window_s,
        overlap_policy=OverlapPolicy(row.overlap_policy),
        paused=row.paused,
        version=row.version,
        next_fire_at=row.next_fire_at,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def now(session: Session) -> datetime:
    """What time it is for every schedule: the database's."""
    instant: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return instant


def _bound(schedule: Schedule) -> dict[str, Any]:
    return {
        "id": schedule.id,
        "tenant": schedule.tenant,
        "name": schedule.name,
        "template": json.dumps(schedule.template.as_json()),
        "rules": json.dumps(schedule.rules.as_json()),
        "missed_policy": schedule.missed_policy,
        "missed_window_s": schedule.missed_window_s,
        "overlap_policy": schedule.overlap_policy,
        "paused": schedule.paused,
        "next_fire_at": schedule.next_fire_at,
    }


def add(session: Session, schedule: Schedule) -> Schedule:
    """Keep a new schedule."""
    row = session.execute(
        text(
            f"""
            INSERT INTO schedules (id, tenant, name, template, rules, missed_policy, missed_window_s, overlap_policy,
                                   paused, next_fire_at, created_by)
            VALUES (:id, :tenant, :name, CAST(:template AS jsonb), CAST(:rules AS jsonb), :missed_policy,
                    :missed_window_s, :overlap_policy, :paused, :next_fire_at, :created_by)
            RETURNING {_COLUMNS}
            """
        ),
        {**_bound(schedule), "created_by": schedule.created_by},
    ).one()
    return _to_schedule(row)


def change(session: Session, schedule: Schedule) -> Schedule:
    """Write a locked schedule's new values, as its next version."""
    row = session.execute(
        text(
            f"""
            UPDATE schedules SET name = :name, template = CAST(:template AS jsonb), rules = CAST(:rules AS jsonb),
                missed_policy = :missed_policy, missed_window_s = :missed_window_s, overlap_policy = :overlap_policy,
                paused = :paused, next_fire_at = :next_fire_at, version = version + 1, updated_at = clock_timestamp()
            WHERE id = :id AND tenant = :tenant RETURNING {_COLUMNS}
            """
        ),
        _bound(schedule),
    ).one()
    return _to_schedule(row)


def get(session: Session, tenant: str, schedule_id: UUID, *, lock: bool = False) -> Schedule:
    """One schedule, with ``lock`` locked to the end of the transaction.

    Raises:
        NotFoundError: The tenant has none of this id.
    """
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM schedules WHERE id = :id AND tenant = :tenant {'FOR UPDATE' if lock else ''}"),
        {"id": schedule_id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no schedule {schedule_id}", code="schedule.not_found")
    return _to_schedule(row)


def find(session: Session, tenant: str, *, limit: int, before: UUID | None = None) -> list[Schedule]:
    """The tenant's schedules, newest first, from ``before`` (exclusive) on."""
    rows = session.execute(
        text(
            f"""
            SELECT {_COLUMNS} FROM schedules
            WHERE tenant = :tenant AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
            ORDER BY id DESC LIMIT :limit
            """
        ),
        {"tenant": tenant, "before": before, "limit": limit},
    )
    return [_to_schedule(row) for row in rows]


def delete(session: Session, tenant: str, schedule_id: UUID) -> None:
    """Forget a schedule; its jobs stay.

    Raises:
        NotFoundError: The tenant has none of this id.
    """
    row = session.execute(
        text("DELETE FROM schedules WHERE id = :id AND tenant = :tenant RETURNING id"),
        {"id": schedule_id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no schedule {schedule_id}", code="schedule.not_found")


def lock(session: Session, schedule_ids: Sequence[UUID]) -> list[Schedule]:
    """Schedules of whatever tenants, locked; those that are gone are left out."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM schedules WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"),
        {"ids": list(schedule_ids)},
    )
    return [_to_schedule(row) for row in rows]


def lock_overdue(session: Session, *, late_s: float, most: int) -> list[Schedule]:
    """Schedules whose next fire is ``late_s`` seconds late, locked; those that somebody fires just now are left out."""
    rows = session.execute(
        text(
            f"""
            SELECT {_COLUMNS} FROM schedules
            WHERE NOT paused AND next_fire_at <= clock_timestamp() - make_interval(secs => :late_s)
            ORDER BY next_fire_at LIMIT :most FOR UPDATE SKIP LOCKED
            """
        ),
        {"late_s": late_s, "most": most},
    )
    return [_to_schedule(row) for row in rows]


def active(session: Session, schedule_ids: Sequence[UUID]) -> dict[UUID, tuple[list[UUID], int]]:
    """Per schedule its jobs that are not over: those that wait for none of the others, and how many do wait."""
    rows = session.execute(
        text(
            f"""
            SELECT schedule_id, array_agg(id ORDER BY id) FILTER (WHERE state <> 'blocked') AS running,
                   count(*) FILTER (WHERE state = 'blocked') AS waiting
            FROM jobs WHERE schedule_id = ANY(CAST(:ids AS uuid[])) AND {_ACTIVE} GROUP BY schedule_id
            """
        ),
        {"ids": list(schedule_ids)},
    )
    return {row.schedule_id: (row.running or [], row.waiting) for row in rows}


def add_fires(session: Session, fires: Sequence[Fire]) -> set[UUID]:
    """Keep fires; the jobs of those whose instant had not fired yet. No other may be made."""
    rows = session.execute(
        text(
            """
            INSERT INTO schedule_fires (job_id, schedule_id, fire_at)
            SELECT * FROM unnest(CAST(:jobs AS uuid[]), CAST(:schedules AS uuid[]), CAST(:instants AS timestamptz[]))
            ON CONFLICT (schedule_id, fire_at) DO NOTHING RETURNING job_id
            """
        ),
        {
            "jobs": [fire.job_id for fire in fires],
            "schedules": [fire.schedule.id for fire in fires],
            "instants": [fire.instant for fire in fires],
        },
    )
    return {row.job_id for row in rows}


def add_trigger(session: Session, schedule_id: UUID, job_id: UUID) -> None:
    """Keep that a person had the schedule make a job."""
    session.execute(
        text("INSERT INTO schedule_fires (job_id, schedule_id) VALUES (:job_id, :schedule_id)"),
        {"job_id": job_id, "schedule_id": schedule_id},
    )


def advance(session: Session, next_fires: Mapping[UUID, datetime | None]) -> None:
    """Set when locked schedules fire next."""
    session.execute(
        text(
            """
            UPDATE schedules AS s SET next_fire_at = given.next_fire_at
            FROM unnest(CAST(:ids AS uuid[]), CAST(:instants AS timestamptz[])) AS given (id, next_fire_at)
            WHERE s.id = given.id
            """
        ),
        {"ids": list(next_fires), "instants": list(next_fires.values())},
    )


def alarms(session: Session) -> dict[UUID, datetime]:
    """When each schedule that fires again, and not just now, is to be woken."""
    rows = session.execute(
        text("SELECT id, next_fire_at FROM schedules WHERE NOT paused AND next_fire_at > clock_timestamp()")
    )
    return {row.id: row.next_fire_at for row in rows}


def known(session: Session, schedule_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that are schedules which may fire."""
    rows = session.execute(
        text(
            """
            SELECT id FROM schedules
            WHERE id = ANY(CAST(:ids AS uuid[])) AND NOT paused AND next_fire_at IS NOT NULL
            """
        ),
        {"ids": list(schedule_ids)},
    )
    return {row.id for row in rows}
