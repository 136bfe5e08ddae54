"""The statement that numbers committed events: each tenant's ``seq`` runs from 1 without a gap.

Sequences and horizons of transaction ids both skip or stall; one writer that numbers what it can see does neither.
Only the leading engine calls it. What is numbered here is handed on exactly once, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.lifecycle import Event, JobState
from app.persistence.job_rows import ENDED
from app.persistence.prepared import Prepared

_NUMBER: Final = Prepared(
    f"""
    WITH fresh AS MATERIALIZED (
        SELECT job_id, number, tenant, at FROM job_events WHERE seq IS NULL ORDER BY at, job_id, number LIMIT :most
    ), counted AS (
        SELECT tenant, count(*) AS events FROM fresh GROUP BY tenant
    ), counters AS (
        INSERT INTO event_counters AS c (tenant, last) SELECT tenant, events FROM counted ORDER BY tenant
        ON CONFLICT (tenant) DO UPDATE SET last = c.last + excluded.last RETURNING tenant, last
    ), placed AS (
        SELECT f.job_id, f.number, n.last - c.events
               + row_number() OVER (PARTITION BY f.tenant ORDER BY f.at, f.job_id, f.number) AS seq
        FROM fresh AS f JOIN counted AS c USING (tenant) JOIN counters AS n USING (tenant)
    ), numbered AS (
        UPDATE job_events AS e SET seq = p.seq FROM placed AS p
        WHERE e.job_id = p.job_id AND e.number = p.number
        RETURNING e.job_id, e.number, e.type, e.source, e.target, e.seq
    )
    SELECT count(*) AS events, NULL AS job_id, NULL AS source, NULL AS target, 0 AS seq, NULL AS parent_id,
           NULL AS tenant, false AS is_needed, false AS extends FROM numbered
    UNION ALL
    SELECT 0, n.job_id, n.source, n.target, n.seq, j.parent_id, j.tenant, j.is_needed, j.extension IS NOT NULL
    FROM numbered AS n JOIN LATERAL (
        SELECT parent_id, tenant, extension,
               (SELECT true FROM job_needs WHERE needs_id = n.job_id AND NOT over LIMIT 1) IS NOT NULL AS is_needed
        FROM jobs WHERE id = n.job_id
    ) AS j ON j.parent_id IS NOT NULL OR j.is_needed
    WHERE n.source IS DISTINCT FROM n.target AND n.type <> '{Event.RERUN}'
    AND (n.target IN ({ENDED}, '{JobState.RETRY_WAIT}') OR n.source IN ({ENDED}))
    ORDER BY seq
    """
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that other jobs hang on came to an end, was opened again after one, or left its window until its retry.

    A stage that is run again is none of these: its failure was not counted as an end.
    """

    job_id: UUID
    tenant: str
    parent_id: UUID | None
    source: JobState | None
    target: JobState
    is_needed: bool
    extends: bool


def number(session: Session, *, most: int) -> tuple[int, Sequence[Ended]]:
    """Number up to ``most`` events.

    Returns:
        How many there were, and of them the ends that parents and dependents must hear of, in order.
    """
    counted, *rows = _NUMBER.execute(session, {"most": most})
    return counted.events, [
        Ended(
            job_id=row.job_id,
            tenant=row.tenant,
            parent_id=row.parent_id,
            source=JobState(row.source) if row.source else None,
            target=JobState(row.target),
            is_needed=row.is_needed,
            extends=row.extends,
        )
        for row in rows
    ]
