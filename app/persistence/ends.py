"""Statements that end many holds at once: the members of a claimed batch of cheap jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.lifecycle import TRANSITIONS, Event
from app.persistence.job_rows import STATE
from app.persistence.jobs import COUNTS
from app.persistence.prepared import Prepared


def _statement(event: Event, sets: str, *, data: str = "'{}'", unless: str = "false") -> Prepared:
    return Prepared(
        f"""
        WITH given AS MATERIALIZED (
            SELECT * FROM jsonb_to_recordset(CAST(:given AS jsonb))
            AS given (id uuid, fence integer, result jsonb, outcome text, extension jsonb)
        ), held AS (
            SELECT j.id, given.result AS new_result, given.outcome AS new_outcome,
                   given.extension AS new_extension
            FROM (SELECT * FROM given ORDER BY id) AS given CROSS JOIN LATERAL (
                SELECT id FROM jobs WHERE id = given.id AND fence = given.fence AND {STATE} = 'running'
                AND NOT ({unless}) FOR UPDATE
            ) AS j
        ), moved AS (
            UPDATE jobs SET state = '{TRANSITIONS[event].target}', worker = NULL, event_no = event_no + 1,
                updated_at = clock_timestamp(), {sets}
            FROM held WHERE jobs.id = held.id
            RETURNING jobs.id, event_no, tenant, state, fence, rows_done, error_count, started_at, finished_at
        ), told AS (
            INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
            SELECT id, event_no, tenant, '{event}', 'worker', 'running', state, fence, {data} FROM moved
        )
        SELECT id FROM given WHERE id NOT IN (SELECT id FROM moved)
        """
    )


_COMPLETE: Final = _statement(
    Event.COMPLETE,
    "finished_at = clock_timestamp(), result = new_result, outcome = new_outcome, error = NULL,"
    " extension = new_extension",
    data=COUNTS,
)
_HAND_BACK: Final = _statement(
    Event.HAND_BACK,
    "due_at = clock_timestamp(), attempts = greatest(attempts - 1, 0)",
    data="jsonb_build_object('reason', CAST(:reason AS text), 'rows_done', rows_done)",
    unless="cancel_requested",
)


def complete(session: Session, ended: Sequence[tuple[Job, Result]]) -> set[UUID]:
    """Complete jobs with what they returned, each under its fence; the ids of those that were not held."""
    given = [
        {
            "id": job.id.hex,
            "fence": job.fence,
            "result": result.kept,
            "outcome": result.outcome,
            "extension": result.extension or None,
        }
        for job, result in ended
    ]
    return {row.id for row in _COMPLETE.execute(session, {"given": json.dumps(given)})}


def hand_back(session: Session, jobs: Sequence[Job], reason: str) -> set[UUID]:
    """Put held jobs back to wait, not counted as attempts; the ids of those that were not held, or asked to end."""
    given = [{"id": job.id.hex, "fence": job.fence} for job in jobs]
    return {row.id for row in _HAND_BACK.execute(session, {"given": json.dumps(given), "reason": reason})}
