"""The ledger of a job: which rows it refused, where they stand and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final
from uuid import UUID

from app.dataplane.ledger_csv import as_csv
from app.dataplane.plan import Plan, from_checkpoint
from app.dataplane.single import texts_of
from app.domain.errors import NotFoundError
from app.domain.failed_records import FailedGroup, FailedRecord
from app.domain.jobs import Job
from app.persistence import failed_records, jobs
from app.persistence.sessions import Sessions
from app.services.row_texts import RowTexts

_ROWS_A_READ: Final = 2_000


class FailedRecords:
    """The use cases of the ledger."""

    def __init__(self, sessions: Sessions, texts: RowTexts) -> None:
        self._sessions = sessions
        self._texts = texts

    def page(self, tenant: str, job_id: UUID, *, after: int, limit: int) -> list[FailedRecord]:
        """A job's failed records behind line ``after``, in the order of the file.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            jobs.get(session, tenant, job_id)
            return failed_records.of_job(session, tenant, job_id, after=after, limit=limit)

    def get(self, tenant: str, job_id: UUID, line: int) -> tuple[FailedRecord, dict[str, str] | None]:
        """One of them, and its fields by name; ``None`` when it cannot be read, or no file had it.

        Raises:
            NotFoundError: The tenant has no such job, or the job's ledger no such line.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
            record = failed_records.of_line(session, tenant, job_id, line)
        if record is None:
            raise NotFoundError(f"the ledger of job {job_id} has no line {line}", code="ledger.no_such_line")
        plan = _plan_of(job)
        if plan is None:
            return record, None
        with self._texts.of(job, plan) as file:
            record = file.sought(record)
        texts = texts_of(record, plan) if record.has_text else None
        return record, dict(zip(plan.names, texts, strict=True)) if isinstance(texts, list) else None

    def groups(self, tenant: str, job_id: UUID) -> list[FailedGroup]:
        """A job's failed records by code and field, the largest group first.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            jobs.get(session, tenant, job_id)
            return failed_records.groups(session, tenant, job_id)

    def as_csv(self, tenant: str, job_id: UUID, *, most: int | None = None) -> Iterator[str]:
        """All of them as a CSV file in pieces, with the file's own columns; errors and memory as ``all``.

        Of rows whose text was not kept they are read from the import's file meanwhile.
        """
        with self._sessions.begin() as session:
            job = jobs.get(session, tenant, job_id)
        plan = _plan_of(job)
        records = islice(self.all(tenant, job_id), most)
        return as_csv(job_id, self._with_texts(job, plan, records) if plan else records, plan)

    def _with_texts(self, job: Job, plan: Plan, records: Iterable[FailedRecord]) -> Iterator[FailedRecord]:
        with self._texts.of(job, plan) as texts:
            yield from map(texts.sought, records)

    def all(self, tenant: str, job_id: UUID) -> Iterator[FailedRecord]:
        """Every failed record in the order of the file; holds at most 2,000 and no transaction between reads.

        Raises:
            NotFoundError: The tenant has no such job; raised by the call, not by the first row.
        """
        first = self.page(tenant, job_id, after=-1, limit=_ROWS_A_READ)
        return self._from(tenant, job_id, first)

    def _from(self, tenant: str, job_id: UUID, read: list[FailedRecord]) -> Iterator[FailedRecord]:
        while read:
            yield from read
            read = self.page(tenant, job_id, after=read[-1].line, limit=_ROWS_A_READ)


def _plan_of(job: Job) -> Plan | None:
    """What an import that has begun does with its file; ``None`` for other jobs."""
    return from_checkpoint(job.checkpoint) if job.checkpoint and "import" in job.checkpoint else None
