"""Statements on what job types log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.jobs import Job


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; ``number`` counts those of one start of the job, ``fence``, from 1."""

    fence: int
    number: int
    at: datetime
    level: str
    event: str
    data: dict[str, Any]


def add(session: Session, job: Job, lines: Sequence[LogLine]) -> None:
    """Store lines; call it before the job's guarded UPDATE in one transaction."""
    session.execute(
        text(
            """
            INSERT INTO job_logs (job_id, fence, number, tenant, at, level, event, data)
            VALUES (:job_id, :fence, :number, :tenant, :at, :level, :event, CAST(:data AS jsonb))
            """
        ),
        [
            {
                "job_id": job.id,
                "tenant": job.tenant,
                "fence": line.fence,
                "number": line.number,
                "at": line.at,
                "level": line.level,
                "event": line.event,
                "data": json.dumps(line.data),
            }
            for line in lines
        ],
    )


def of_job(session: Session, tenant: str, job_id: UUID, *, after: tuple[int, int], limit: int) -> list[LogLine]:
    """A job's lines behind fence and number ``after``, in order."""
    rows = session.execute(
        text(
            """
            SELECT fence, number, at, level, event, data FROM job_logs
            WHERE job_id = :job_id AND tenant = :tenant AND (fence, number) > (:fence, :number)
            ORDER BY fence, number LIMIT :limit
            """
        ),
        {"job_id": job_id, "tenant": tenant, "fence": after[0], "number": after[1], "limit": limit},
    )
    return [LogLine(**row._mapping) for row in rows]
