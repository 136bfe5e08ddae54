"""Statements on what jobs wait for: other jobs that must be over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import OnDependencyFailure
from app.domain.lifecycle import Event, JobState
from app.persistence.families import PARENT_QUEUE
from app.persistence.job_rows import ENDED
from app.persistence.prepared import Prepared

NEED_FAILED: Final = {"code": "job.need_failed", "message": "a job that this one waited for did not complete"}


def lock(session: Session, tenant: str, needs: Sequence[UUID]) -> dict[UUID, JobState]:
    """The states of the jobs of ``needs`` that the tenant has; none of them ends before this transaction does."""
    rows = session.execute(
        text("SELECT id, state FROM jobs WHERE id = ANY(:ids) AND tenant = :tenant ORDER BY id FOR SHARE"),
        {"ids": list(needs), "tenant": tenant},
    )
    return {row.id: JobState(row.state) for row in rows}


def add(session: Session, edges: Sequence[tuple[UUID, UUID, bool]]) -> None:
    """Keep pairs of a job and one it waits for, each with whether that is over already."""
    session.execute(
        text(
            """
            INSERT INTO job_needs (job_id, needs_id, over)
            SELECT * FROM unnest(CAST(:jobs AS uuid[]), CAST(:needs AS uuid[]), CAST(:over AS boolean[]))
            """
        ),
        {
            "jobs": [job for job, _, _ in edges],
            "needs": [needed for _, needed, _ in edges],
            "over": [over for _, _, over in edges],
        },
    )


def of_job(session: Session, job_id: UUID) -> list[UUID]:
    """What a job waits or waited for."""
    rows = session.execute(text("SELECT needs_id FROM job_needs WHERE job_id = :id ORDER BY needs_id"), {"id": job_id})
    return [row.needs_id for row in rows]


# A dependent of several ended jobs counts each of them down; its own policy says what a failed one does to it. One that
# was opened again before its end was heard of is waited for anew.
_RELEASE: Final = Prepared(
    f"""
    WITH fresh AS MATERIALIZED (
        UPDATE job_needs AS e SET over = true FROM jobs AS n
        WHERE e.needs_id = ANY(CAST(:ended AS uuid[])) AND NOT e.over AND n.id = e.needs_id AND n.state IN ({ENDED})
        RETURNING e.job_id, n.state <> 'completed' AS has_failed
    ), over AS (
        SELECT job_id, count(*) AS needs, bool_or(has_failed) AS any_failed FROM fresh GROUP BY job_id
    ), waiting AS (
        SELECT j.id, o.needs, o.any_failed, j.on_dependency_failure, j.parent_id, j.needs_left FROM jobs AS j
        JOIN over AS o ON o.job_id = j.id WHERE j.state = 'blocked' ORDER BY j.id FOR UPDATE OF j
    ), decided AS (
        SELECT id, needs, CASE
            WHEN any_failed AND on_dependency_failure = '{OnDependencyFailure.CANCEL}' THEN 'cancelled'
            WHEN any_failed AND on_dependency_failure = '{OnDependencyFailure.FAIL}' THEN 'failed'
            WHEN needs_left <= needs AND parent_id IS NULL THEN 'open'
            ELSE 'blocked' END AS target
        FROM waiting
    ), moved AS (
        UPDATE jobs SET state = d.target, needs_left = greatest(needs_left - d.needs, 0),
            event_no = event_no + CASE WHEN d.target = 'blocked' THEN 0 ELSE 1 END, updated_at = clock_timestamp(),
            due_at = CASE WHEN d.target = 'open' THEN coalesce(run_after, clock_timestamp()) ELSE due_at END,
            finished_at = CASE WHEN d.target IN ('cancelled', 'failed') THEN clock_timestamp() END,
            cancel_reason = CASE WHEN d.target = 'cancelled' THEN 'skipped' END,
            error = CASE WHEN d.target = 'failed' THEN CAST(:error AS jsonb) END
        FROM decided AS d WHERE jobs.id = d.id RETURNING jobs.*
    ), told AS (
        INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence, data)
        SELECT id, event_no, tenant, CASE state WHEN 'open' THEN '{Event.RELEASE}' WHEN 'failed' THEN '{Event.FAIL}'
                                     ELSE '{Event.CANCEL}' END,
               'engine', 'blocked', state, fence, CASE state
                   WHEN 'cancelled' THEN jsonb_build_object('reason', 'skipped')
                   WHEN 'failed' THEN jsonb_build_object('error', CAST(:error AS jsonb)) ELSE '{{}}' END
        FROM moved WHERE state <> 'blocked'
    )
    SELECT id, tenant, parent_id, state IN ('cancelled', 'failed') AND queue = '{PARENT_QUEUE}' AS is_stopped_parent
    FROM moved
    """
)


class Released(NamedTuple):
    """What the ends of jobs did to those that wait for them.

    Args:
        parents: Of children that may start now; when they start is for the family's window to say.
        stopped: Parents, each with its tenant, that are over before they began; their children wait still.
    """

    parents: frozenset[UUID] = frozenset()
    stopped: tuple[tuple[str, UUID], ...] = ()


def release(session: Session, ended: Sequence[UUID]) -> Released:
    """Count ended jobs down on those that wait for them, and move those that wait for nothing more."""
    rows = _RELEASE.execute(session, {"ended": list(ended), "error": json.dumps(NEED_FAILED)})
    return Released(
        frozenset(row.parent_id for row in rows if row.parent_id is not None),
        tuple((row.tenant, row.id) for row in rows if row.is_stopped_parent),
    )
