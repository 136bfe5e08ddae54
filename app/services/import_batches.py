"""The batches of imports: those of a job, and what each size came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.domain.batch_sizes import SizeUse, Suggestion, suggest
from app.domain.ports import Clock
from app.persistence import imports, jobs
from app.persistence.imports import Entered
from app.persistence.sessions import Sessions
from app.services.tables import Tables


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Batches of a job.

    Args:
        batch_size: Records of each, at most; ``None`` before the first one, and of what is no import.
        parallel_batches: Lanes that write them.
        batches: How many some lane has entered so far.
    """

    items: list[Entered]
    batch_size: int | None = None
    parallel_batches: int | None = None
    batches: int = 0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What imports into a table came to by batch size, and the size that suits it."""

    table: str
    days: int
    items: Sequence[SizeUse]
    suggestion: Suggestion


class ImportBatches:
    """The use cases of the batches of imports."""

    def __init__(self, sessions: Sessions, tables: Tables, clock: Clock) -> None:
        self._sessions = sessions
        self._tables = tables
        self._clock = clock

    def page(self, tenant: str, job_id: UUID, *, after: int, limit: int) -> BatchPage:
        """A job's batches behind number ``after``, in the order of the file.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
            lanes = imports.lanes(session, job_id)
            if not lanes or job.checkpoint is None:
                return BatchPage([])
            items = imports.entered(session, job_id, after=after, limit=limit)
        plan: dict[str, int] = job.checkpoint["import"]
        return BatchPage(items, plan["batch_rows"], plan["lanes"], 1 + max(lanes.values()))

    def report(self, tenant: str, table: str, *, days: int) -> BatchReport:
        """What the completed imports of the last days came to by batch size.

        Raises:
            NotFoundError: The tenant has no such table.
        """
        self._tables.get(tenant, table)
        since = self._clock.now() - timedelta(days=days)
        with self._sessions.begin() as session:
            uses = imports.use_of_sizes(session, tenant, table, since=since)
        return BatchReport(table, days, uses, suggest(uses))
