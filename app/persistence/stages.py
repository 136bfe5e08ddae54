"""Statements on the stages of a pipeline: filling in their configs, running them again, and what they came to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.pipelines import Reference, Values


@dataclass(frozen=True, slots=True)
class NewStage:
    """What is kept of a stage beside its job."""

    job_id: UUID
    unfilled: bool
    reruns: int


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A stage that may begin, but for the templates in its config."""

    job_id: UUID
    config: dict[str, Any]


def add(session: Session, stages: Sequence[NewStage]) -> None:
    """Make jobs stages."""
    session.execute(
        text(
            """
            INSERT INTO pipeline_stages (job_id, unfilled, reruns_left)
            SELECT * FROM unnest(CAST(:jobs AS uuid[]), CAST(:unfilled AS boolean[]), CAST(:reruns AS integer[]))
            """
        ),
        {
            "jobs": [stage.job_id for stage in stages],
            "unfilled": [stage.unfilled for stage in stages],
            "reruns": [stage.reruns for stage in stages],
        },
    )


def unfilled(session: Session, parent: UUID) -> list[Unfilled]:
    """The stages that wait for nothing more and whose templates are still to be filled in, locked."""
    rows = session.execute(
        text(
            """
            SELECT j.id, j.config FROM jobs AS j JOIN pipeline_stages AS s ON s.job_id = j.id
            WHERE j.parent_id = :parent AND j.state = 'blocked' AND j.needs_left = 0 AND s.unfilled
            ORDER BY j.id FOR UPDATE OF j
            """
        ),
        {"parent": parent},
    )
    return [Unfilled(row.id, row.config) for row in rows]


def is_unfilled(session: Session, job_id: UUID) -> bool:
    """Whether a job is a stage whose templates are still to be filled in."""
    found = session.execute(text("SELECT unfilled FROM pipeline_stages WHERE job_id = :id"), {"id": job_id})
    return bool(found.scalar_one_or_none())


def values(session: Session, parent: UUID, references: Sequence[Reference], *, max_bytes: int) -> Values:
    """What ``references`` refer to in the results of a pipeline's stages; no more than ``max_bytes`` are read."""
    distinct = list(dict.fromkeys(references))
    given = [{"no": no, "stage": one.stage, "path": list(one.path)} for no, one in enumerate(distinct)]
    rows = session.execute(
        text(
            """
            WITH found AS MATERIALIZED (
                SELECT g.no, j.result #> g.path AS value
                FROM jsonb_to_recordset(CAST(:given AS jsonb)) AS g (no integer, stage text, path text[])
                JOIN jobs AS j ON j.parent_id = :parent AND j.name = g.stage AND j.state = 'completed'
                WHERE j.result #> g.path IS NOT NULL
            ), sized AS (
                SELECT no, value, octet_length(CAST(value AS text)) AS size FROM found
            )
            SELECT no, size, CASE WHEN sum(size) OVER (ORDER BY no) <= :max_bytes THEN value END AS value
            FROM sized ORDER BY no
            """
        ),
        {"given": json.dumps(given), "parent": parent, "max_bytes": max_bytes},
    ).all()
    return Values({distinct[row.no]: row.value for row in rows}, sum(row.size for row in rows))


def fill(session: Session, job_id: UUID, config: str) -> None:
    """Give a stage its config, as JSON; it may begin."""
    session.execute(
        text("UPDATE jobs SET config = CAST(:config AS jsonb) WHERE id = :id"), {"id": job_id, "config": config}
    )
    session.execute(text("UPDATE pipeline_stages SET unfilled = false WHERE job_id = :id"), {"id": job_id})


def take_rerun(session: Session, job_id: UUID) -> bool:
    """Whether a stage that began may be run again as a whole; that is one time less from now on."""
    taken = session.execute(
        text(
            """
            UPDATE pipeline_stages SET reruns_left = reruns_left - 1
            WHERE job_id = :id AND reruns_left > 0 AND NOT unfilled RETURNING job_id
            """
        ),
        {"id": job_id},
    )
    return taken.one_or_none() is not None


def came_to(session: Session, parent: UUID, *, max_bytes: int) -> tuple[dict[str, dict[str, Any]], bool]:
    """The state and result of each stage by its name, in order; and whether some results were left out for their size.

    Args:
        max_bytes: Of the results as JSON, the first stage's first.
    """
    rows = session.execute(
        text(
            """
            SELECT name, state, left_out, CASE WHEN NOT left_out THEN result END AS result FROM (
                SELECT name, state, result, child_no, result IS NOT NULL
                       AND sum(octet_length(CAST(result AS text))) OVER (ORDER BY child_no) > :max_bytes AS left_out
                FROM jobs WHERE parent_id = :parent
            ) AS stages ORDER BY child_no
            """
        ),
        {"parent": parent, "max_bytes": max_bytes},
    ).all()
    return {row.name: {"state": row.state, "result": row.result} for row in rows}, any(row.left_out for row in rows)
