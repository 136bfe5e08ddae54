"""Statements that read many jobs: by id, by filters, and where those stand that somebody waits for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job, Origin
from app.domain.lifecycle import JobState
from app.domain.progress import SetProgress
from app.persistence.job_rows import COLUMNS, ENDED, to_job
from app.persistence.partitions import first_id
from app.persistence.prepared import Prepared


def get_many(session: Session, tenant: str, job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Those of ``job_ids`` that exist for the tenant, by id."""
    rows = session.execute(
        text(f"SELECT {COLUMNS} FROM jobs WHERE id = ANY(:ids) AND tenant = :tenant"),
        {"ids": list(job_ids), "tenant": tenant},
    )
    return {row.id: to_job(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs a list holds; ``None`` and empty ask nothing.

    ``any_of`` are states, each with whether the job must be at a retry (an attempt came before), or either;
    ``of_system`` whether the system itself made it, or a client.
    """

    states: tuple[JobState, ...] = ()
    any_of: tuple[tuple[JobState, bool | None], ...] = ()
    types: tuple[str, ...] = ()
    origin: Origin | None = None
    of_system: bool | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    started_from: datetime | None = None
    started_until: datetime | None = None
    labels: Mapping[str, str] | None = None
    clone_of: UUID | None = None
    schedule_id: UUID | None = None
    parent_id: UUID | None = None


_ID_BEFORE: Final = timedelta(hours=1)
"""How long before its job was stored, by the clock of Postgres, an id may have been made: those of a batch's payloads
are made as they come in."""
_ID_AFTER: Final = timedelta(minutes=15)
"""How far the clock of who makes ids may be ahead of that of Postgres; S3 refuses who is further off. A list reads all
jobs of so long a time after its own."""
_FIRST_INSTANT: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_INSTANT: Final = datetime(9999, 12, 31, tzinfo=UTC)


def find(session: Session, tenant: str, filters: Filters, *, limit: int, before: UUID | None = None) -> list[Job]:
    """Jobs of the tenant, newest first, from ``before`` (exclusive) on."""
    where, bound = _where(tenant, filters, before)
    rows = session.execute(
        text(f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY id DESC LIMIT :limit"), {**bound, "limit": limit}
    )
    return [to_job(row) for row in rows]


def progress(session: Session, tenant: str, filters: Filters) -> SetProgress:
    """How far jobs of the tenant are together; as ``domain.progress`` tells it of each and of all."""
    where, bound = _where(tenant, filters)
    row = session.execute(
        text(
            f"""
            SELECT count(*) AS jobs,
                   count(*) FILTER (WHERE state = '{JobState.COMPLETED}') AS completed,
                   count(*) FILTER (WHERE state = '{JobState.FAILED}') AS failed,
                   count(*) FILTER (WHERE state = '{JobState.CANCELLED}') AS cancelled,
                   coalesce(sum(rows_done), 0)::bigint AS rows_done,
                   CASE WHEN count(total) = count(*) THEN coalesce(sum(total), 0)::bigint END AS rows_total,
                   coalesce(round(avg(percent), 1), 100)::float8 AS mean_percent,
                   CASE WHEN count(total) = count(*)
                        THEN round(100 * sum(least(rows_done, total)) / nullif(sum(total), 0), 1)::float8
                   END AS weighted_percent
            FROM (
                SELECT state, rows_done,
                       CASE WHEN rows_total IS NULL AND state = '{JobState.COMPLETED}' THEN rows_done
                            ELSE rows_total END AS total,
                       CASE WHEN state = '{JobState.COMPLETED}' THEN 100
                            ELSE least(99.9, round(100 * coalesce(
                                parts_done::numeric / nullif(parts_total, 0),
                                rows_done::numeric / nullif(rows_total, 0),
                                bytes_done::numeric / nullif(bytes_total, 0), 0
                            ), 1)) END AS percent
                FROM jobs WHERE {where}
            ) AS members
            """
        ),
        bound,
    ).one()
    return SetProgress(**row._mapping)


def _where(tenant: str, filters: Filters, before: UUID | None = None) -> tuple[str, dict[str, Any]]:
    """The condition that the tenant's jobs meet, and what it binds."""
    clauses = ["tenant = :tenant"]
    bound: dict[str, Any] = {"tenant": tenant}
    conditions = {
        **_among("state", filters.states),
        **_among("type", filters.types),
        "origin = :origin": ("origin", filters.origin),
        "created_at >= :created_from": ("created_from", filters.created_from),
        "created_at < :created_until": ("created_until", filters.created_until),
        "started_at >= :started_from": ("started_from", filters.started_from),
        "started_at < :started_until": ("started_until", filters.started_until),
        "id >= :first_id": ("first_id", _id_at(filters.created_from, -_ID_BEFORE)),
        "id < :last_id": ("last_id", _id_at(filters.created_until or filters.started_until, _ID_AFTER)),
        "labels @> CAST(:labels AS jsonb)": ("labels", json.dumps(dict(filters.labels)) if filters.labels else None),
        "clone_of = :clone_of": ("clone_of", filters.clone_of),
        "schedule_id = :schedule_id": ("schedule_id", filters.schedule_id),
        "parent_id = :parent_id": ("parent_id", filters.parent_id),
        "id < :before": ("before", before),
    }
    if filters.of_system is not None:
        clauses.append(f"origin {'=' if filters.of_system else '<>'} '{Origin.SYSTEM}'")
    if filters.any_of:
        clauses.append("(" + " OR ".join(_state_clause(state, retrying) for state, retrying in filters.any_of) + ")")
    for clause, (name, value) in conditions.items():
        if value is not None:
            clauses.append(clause)
            bound[name] = value
    return " AND ".join(clauses), bound


def _among(column: str, values: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Equality where there is one value: an index then gives its rows in the order of their ids."""
    if len(values) == 1:
        return {f"{column} = :{column}": (column, values[0])}
    return {f"{column} = ANY(:{column}s)": (f"{column}s", list(values) or None)}


def _id_at(instant: datetime | None, away: timedelta) -> UUID | None:
    """What ids are compared with, to pass by jobs of other times unread; ``None`` where that is beyond all ids."""
    if instant is None or not _FIRST_INSTANT - away <= instant <= _LAST_INSTANT - away:
        return None
    return first_id(instant + away)


def _state_clause(state: JobState, retrying: bool | None) -> str:
    earlier_attempts = 1 if state is JobState.RUNNING else 0
    at_retry = f"(queue = 'retry' OR attempts > {earlier_attempts})"
    if retrying is None:
        return f"state = '{state}'"
    return f"(state = '{state}' AND {'' if retrying else 'NOT '}{at_retry})"


_ENDED: Final = Prepared(f"SELECT {COLUMNS} FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND state IN ({ENDED})")


def ended(session: Session, job_ids: Sequence[UUID]) -> list[Job]:
    """Those of the jobs, of whatever tenant, that are over."""
    return [to_job(row) for row in _ENDED.execute(session, {"ids": list(job_ids)})]
