"""What can be read of every job as a file, made when it is asked for: its log, its report, its failed rows."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from app.domain.artifacts import ArtifactKind
from app.domain.jobs import Job, JobEvent
from app.persistence import events, failed_records, imports, job_logs, jobs
from app.persistence.job_logs import LogLine
from app.persistence.sessions import Sessions
from app.services.links import Link, Links

MOST_LINES: Final = 10_000
"""In one answer, of each source."""
_MOST_BATCHES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log was read: the last event, and the last line with the start of the job that it is of."""

    event: int = 0
    fence: int = 0
    line: int = 0

    def __str__(self) -> str:
        return f"{self.event}.{self.fence}.{self.line}"


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that is made when it is asked for."""

    id: UUID
    job_id: UUID
    kind: ArtifactKind
    name: str
    content_type: str
    rows: int | None
    created_at: datetime
    link: Link | None


class JobFiles:
    """Makes them. They are there from the job's first moment to its last, and cost nothing until somebody asks."""

    def __init__(self, sessions: Sessions, links: Links) -> None:
        self._sessions = sessions
        self._links = links

    def of_job(self, tenant: str, job_id: UUID) -> list[MadeFile]:
        """Those of a job.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
        at = f"/v1/jobs/{job_id}"
        made = [
            self._made(job, ArtifactKind.LOG, "log.ndjson", "application/x-ndjson", f"{at}/log"),
            self._made(job, ArtifactKind.REPORT, "report.json", "application/json", f"{at}/report"),
        ]
        if job.error_count:
            path = f"{at}/failed-records"
            made.append(self._made(job, ArtifactKind.FAILED_ROWS, "failed-rows.csv", "text/csv", path, format="csv"))
        return made

    def _made(self, job: Job, kind: ArtifactKind, name: str, content_type: str, path: str, **asked: str) -> MadeFile:
        rows = job.error_count if kind is ArtifactKind.FAILED_ROWS else None
        link = self._links.sign(job.tenant, path, **asked)
        return MadeFile(uuid5(job.id, f"made/{kind}"), job.id, kind, name, content_type, rows, job.created_at, link)

    def log(self, tenant: str, job_id: UUID, after: Position) -> tuple[list[dict[str, Any]], Position]:
        """What happened to a job and what its type logged, in the order of time; and how far that is.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            jobs.get(session, tenant, job_id)
            happened = events.of_job(session, tenant, job_id, after=after.event, limit=MOST_LINES)
            logged = job_logs.of_job(session, tenant, job_id, after=(after.fence, after.line), limit=MOST_LINES)
        lines, position = [], after
        for moved, line in heapq.merge(_of_events(happened), _of_lines(logged), key=lambda one: one[1]["timestamp"]):
            position = replace(position, **moved)
            lines.append({**line, "job_id": str(job_id), "position": str(position)})
        return lines, position

    def report(self, tenant: str, job_id: UUID) -> dict[str, Any]:
        """What a job came to: its books, its batches, its errors and the rows it refused, by kind.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
            errors = events.of_job(session, tenant, job_id, limit=MOST_LINES, errors=True)
            refused = failed_records.groups(session, tenant, job_id)
            lanes = imports.lanes(session, job_id)
            batches = imports.entered(session, job_id, after=-1, limit=_MOST_BATCHES) if lanes else []
        return {
            "job": job,
            "books": {"rows": job.progress.rows_done, "refused": job.error_count, **job.counters},
            "batches": batches,
            "errors": [{**event.data["error"], "at": event.at} for event in errors],
            "failed_rows": refused,
        }


def _of_events(happened: list[JobEvent]) -> Iterator[tuple[dict[str, int], dict[str, Any]]]:
    """Lines, each with how far the log is read with it."""
    for event in happened:
        yield (
            {"event": event.number},
            {
                "timestamp": event.at.isoformat(),
                "level": "error" if "error" in event.data else "info",
                "event": event.type,
                "start": event.fence,
                "state": event.target,
                "actor": event.actor,
                **_others(event.data),
            },
        )


def _of_lines(logged: list[LogLine]) -> Iterator[tuple[dict[str, int], dict[str, Any]]]:
    for line in logged:
        said = {"timestamp": line.at.isoformat(), "level": line.level, "event": line.event, "start": line.fence}
        yield {"fence": line.fence, "line": line.number}, {**said, **_others(line.data)}


_OWN: Final = frozenset({"timestamp", "level", "event", "job_id", "start", "state", "actor", "position"})


def _others(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _OWN}
