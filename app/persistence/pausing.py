"""The statement that pauses or resumes many jobs at once: the children of a parent, the jobs of a schedule, theirs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from app.domain.lifecycle import Event

Owner = Literal["parent", "schedule", "schedule of the parent"]
_THEIRS: Final[Mapping[Owner, str]] = {
    "parent": "parent_id = :owner",
    "schedule": "schedule_id = :owner",
    "schedule of the parent": """parent_id IN (
        SELECT id FROM jobs WHERE schedule_id = :owner
        AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait')
    )""",
}


@cache
def _statement(owner: Owner, *, running: bool) -> TextClause:
    states = "'blocked', 'open', 'queued', 'retry_wait'" + (", 'running'" if running else "")
    return text(
        f"""
        WITH theirs AS (
            SELECT id, state AS source FROM jobs
            WHERE {_THEIRS[owner]} AND tenant = :tenant AND paused <> :paused AND state IN ({states})
            ORDER BY id FOR UPDATE
        ), moved AS (
            UPDATE jobs SET paused = :paused, event_no = event_no + 1, updated_at = clock_timestamp(),
                state = CASE WHEN source = 'queued' THEN 'open' ELSE source END
            FROM theirs WHERE jobs.id = theirs.id RETURNING jobs.*, theirs.source
        ), told AS (
            INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
            SELECT id, event_no, tenant, CASE WHEN source <> state THEN '{Event.RETURN}' ELSE :event END,
                   :actor, source, state, fence, jsonb_build_object('reason', '{owner.split()[0]}')
            FROM moved
        )
        SELECT count(*) AS moved FROM moved
        """
    )


def pause_all(
    session: Session, tenant: str, owner: Owner, owner_id: UUID, *, paused: bool, running: bool, actor: str
) -> int:
    """Keep the owner's jobs that have not begun from starting, or let them; how many there were.

    Args:
        running: Those that run too, which stop at their next checkpoint; otherwise they go on.
    """
    event = Event.PAUSE if paused else Event.RESUME
    bound = {"owner": owner_id, "tenant": tenant, "paused": paused, "actor": actor, "event": event}
    return int(session.execute(_statement(owner, running=running), bound).scalar_one())
