"""Statements that look at many jobs at once: how long they took, how fast they went, where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.lifecycle import TERMINAL, JobState
from app.persistence.partitions import first_id

BOUNDS_S: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0)
"""Of the histograms: a job is counted at each bound that it did not take longer than."""
LONGEST: Final = timedelta(days=1)
"""A job that was submitted longer before the time that is looked at is not looked for."""
_PAST_JOBS: Final = 50
_QUANTILES: Final = "ARRAY[0.5, 0.95]"
_DURATION: Final = "extract(epoch FROM finished_at - started_at)::float8"
_WAITING: Final = tuple(sorted(set(JobState) - TERMINAL))
_COUNTED: Final = ", ".join(
    f"count(*) FILTER (WHERE duration_s <= {bound}) AS up_to_{place}" for place, bound in enumerate(BOUNDS_S)
)


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs of a type that ended in one state.

    Args:
        duration_s: The median and the 95th percentile of those that had started; ``rows_per_s`` of those with rows.
        histogram: How many took no longer than each of ``BOUNDS_S``.
    """

    type: str
    state: str
    jobs: int
    rows: int
    duration_s: tuple[float, float] | None
    rows_per_s: tuple[float, float] | None
    histogram: tuple[int, ...]


def ended(session: Session, tenant: str | None, since: datetime, *, most: int | None = None) -> list[Ended]:
    """Jobs that ended since an instant, by type and state.

    Args:
        tenant: ``None`` for all.
        most: Of the jobs submitted last, look at so many only.
    """
    rows = session.execute(
        text(
            f"""
            WITH over AS (
                SELECT type, state, rows_done, {_DURATION} AS duration_s,
                       CASE WHEN rows_done > 0 THEN rows_done / nullif({_DURATION}, 0) END AS rows_per_s
                FROM (
                    SELECT type, state, rows_done, started_at, finished_at FROM jobs
                    WHERE id >= :first AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
                    ORDER BY id DESC LIMIT CAST(:most AS bigint)
                ) AS latest
                WHERE finished_at >= :since
            )
            SELECT type, state, count(*) AS jobs, sum(rows_done)::bigint AS rows, {_COUNTED},
                   percentile_cont({_QUANTILES}) WITHIN GROUP (ORDER BY duration_s) AS duration_s,
                   percentile_cont({_QUANTILES}) WITHIN GROUP (ORDER BY rows_per_s) AS rows_per_s
            FROM over GROUP BY type, state ORDER BY type, state
            """
        ),
        {"tenant": tenant, "since": since, "first": first_id(since - LONGEST), "most": most},
    )
    return [_ended(row) for row in rows]


def _ended(row: Any) -> Ended:
    return Ended(
        type=row.type,
        state=row.state,
        jobs=row.jobs,
        rows=row.rows,
        duration_s=_pair(row.duration_s),
        rows_per_s=_pair(row.rows_per_s),
        histogram=tuple(getattr(row, f"up_to_{place}") for place in range(len(BOUNDS_S))),
    )


def _pair(found: list[float | None] | None) -> tuple[float, float] | None:
    if found is None or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def waiting(session: Session) -> dict[str, int]:
    """How many jobs of all tenants stand in each state that is not an end."""
    rows = session.execute(
        text(
            """
            SELECT s.state, sum((SELECT count(*) FROM jobs AS j WHERE j.tenant = t.name AND j.state = s.state))::bigint
                AS jobs
            FROM unnest(CAST(:states AS text[])) AS s (state), tenants AS t GROUP BY s.state
            """
        ),
        {"states": list(_WAITING)},
    )
    return {row.state: row.jobs for row in rows}


def past_ratios(session: Session, tenant: str, job_type: str) -> list[float]:
    """Of the tenant's last jobs of a type: what was left midway took, over what was foretold then."""
    rows = session.execute(
        text(
            """
            SELECT extract(epoch FROM finished_at - midway_at)::float8 * midway_part
                   / (extract(epoch FROM midway_at - started_at)::float8 * (1 - midway_part)) AS ratio
            FROM (
                SELECT started_at, finished_at, midway_at, midway_part, state FROM jobs
                WHERE tenant = :tenant AND type = :type ORDER BY id DESC LIMIT :most
            ) AS latest
            WHERE state = 'completed' AND midway_part < 1 AND midway_at > started_at
            """
        ),
        {"tenant": tenant, "type": job_type, "most": _PAST_JOBS},
    )
    return [row.ratio for row in rows]
