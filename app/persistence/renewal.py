"""Statements that open a family again: what of it did not complete waits anew, for its needs and for its place."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.lifecycle import TRANSITIONS, Event

_SOURCES: Final = ", ".join(f"'{state}'" for state in sorted(TRANSITIONS[Event.RENEW].sources))


def stopping(session: Session, parent: UUID) -> int:
    """How many children were asked to stop and have not ended yet."""
    row = session.execute(
        text("SELECT count(*) AS jobs FROM jobs WHERE parent_id = :parent AND state = 'running' AND cancel_requested"),
        {"parent": parent},
    ).one()
    return int(row.jobs)


# They have not begun: a failure among them skips the rest as it would have the first time.
_RENEW: Final = text(
    f"""
    WITH children AS (
        SELECT id, state AS source FROM jobs WHERE parent_id = :parent AND tenant = :tenant AND state IN ({_SOURCES})
        ORDER BY id FOR UPDATE
    ), moved AS (
        UPDATE jobs SET state = '{TRANSITIONS[Event.RENEW].target}', event_no = event_no + 1,
            updated_at = clock_timestamp(), attempts = 0, rescues = 0, needs_left = 0, paused = false,
            cancel_requested = false, cancel_reason = NULL, terminate = false, run_after = NULL, started_at = NULL,
            finished_at = NULL
        FROM children WHERE jobs.id = children.id RETURNING jobs.*, children.source
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)
        SELECT id, event_no, tenant, '{Event.RENEW}', :actor, source, state, fence FROM moved
    ), marked AS (
        UPDATE families SET reopened = true WHERE job_id = :parent
    )
    SELECT count(*) AS moved FROM moved
    """
)


def renew(session: Session, tenant: str, parent: UUID, *, actor: str) -> int:
    """Have the children that failed or were cancelled wait again, in one statement; how many there were.

    The engine takes their ends back from the parent's counts, as it had counted them: by their events.
    """
    return int(session.execute(_RENEW, {"parent": parent, "tenant": tenant, "actor": actor}).scalar_one())


def renew_stages(session: Session, pipeline: UUID, *, reruns: int) -> None:
    """Have renewed stages wait for those of their needs that have not completed, and be run again ``reruns`` times."""
    session.execute(
        text(
            """
            WITH edges AS (
                UPDATE job_needs AS e SET over = n.state = 'completed' FROM jobs AS j, jobs AS n
                WHERE j.parent_id = :pipeline AND j.state = 'blocked' AND e.job_id = j.id AND n.id = e.needs_id
                RETURNING e.job_id, e.over
            ), needs AS (
                SELECT job_id, count(*) FILTER (WHERE NOT over) AS jobs FROM edges GROUP BY job_id
            ), anew AS (
                UPDATE pipeline_stages SET reruns_left = :reruns FROM jobs AS j
                WHERE pipeline_stages.job_id = j.id AND j.parent_id = :pipeline AND j.state = 'blocked'
            )
            UPDATE jobs SET needs_left = needs.jobs FROM needs WHERE jobs.id = needs.job_id
            """
        ),
        {"pipeline": pipeline, "reruns": reruns},
    )
