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

# A trigger notes what each statement wrote of a tenant, a hundred events a segment, and the segments are numbered as
# they are: no event is written again. Only those that may hand on an end are looked into.
_NUMBER: Final = Prepared(
    f"""
    WITH waiting AS MATERIALIZED (
        SELECT id, at, tenant, cardinality(jobs) AS events FROM event_segments
        WHERE last_seq IS NULL ORDER BY id LIMIT :most
    ), fresh AS MATERIALIZED (
        SELECT * FROM (SELECT *, sum(events) OVER (ORDER BY id) - events AS before FROM waiting) AS w
        WHERE before < :most
    ), counted AS (
        SELECT tenant, sum(events) AS events FROM fresh GROUP BY tenant
    ), counters AS (
        INSERT INTO event_counters AS c (tenant, last) SELECT tenant, events FROM counted ORDER BY tenant
        ON CONFLICT (tenant) DO UPDATE SET last = c.last + excluded.last RETURNING tenant, last
    ), placed AS (
        SELECT f.id, f.at, n.last - c.events + sum(f.events) OVER (PARTITION BY f.tenant ORDER BY f.id) AS last_seq
        FROM fresh AS f JOIN counted AS c USING (tenant) JOIN counters AS n USING (tenant)
    ), numbered AS (
        UPDATE event_segments AS s SET last_seq = p.last_seq FROM placed AS p
        WHERE s.id = p.id AND s.at = p.at AND s.last_seq IS NULL
        RETURNING cardinality(jobs) AS events, s.last_seq, jobs, numbers, hands_on
    )
    SELECT coalesce(sum(events), 0) AS events, NULL AS job_id, NULL AS source, NULL AS target, 0 AS seq,
           NULL AS parent_id, NULL AS tenant, false AS is_needed, false AS extends FROM numbered
    UNION ALL
    SELECT 0, e.job_id, e.source, e.target, n.last_seq - n.events + p.place, j.parent_id, j.tenant, j.is_needed,
           j.extension IS NOT NULL
    FROM numbered AS n CROSS JOIN LATERAL unnest(n.jobs, n.numbers) WITH ORDINALITY AS p (job_id, number, place)
    JOIN job_events AS e ON e.job_id = p.job_id AND e.number = p.number
    JOIN LATERAL (
        SELECT parent_id, tenant, extension,
               (SELECT true FROM job_needs WHERE needs_id = e.job_id AND NOT over LIMIT 1) IS NOT NULL AS is_needed
        FROM jobs WHERE id = e.job_id
    ) AS j ON j.parent_id IS NOT NULL OR j.is_needed
    WHERE n.hands_on AND e.source IS DISTINCT FROM e.target AND e.type <> '{Event.RERUN}'
    AND (e.target IN ({ENDED}, '{JobState.RETRY_WAIT}') OR e.source IN ({ENDED}))
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
    """Number ``most`` events or a few more; fewer are all there are.

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
