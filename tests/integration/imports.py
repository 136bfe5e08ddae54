"""How the tests of imports put a file into S3, run a job on it without a worker, and look at what it left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.job_types import JobType, Result
from app.domain.jobs import Job, Origin, SubmitJob
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence import jobs
from app.persistence.sessions import Sessions
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.import_rows import JOB_TYPE as IMPORT
from tasks.types.insert_csv_file import JOB_TYPE
from tests.factories import stored


@dataclass
class Importing:
    """One installation's stores, and a tenant."""

    settings: Settings
    sessions: Sessions
    objects: ObjectStore
    tenant: str = "default"
    files: int = field(default=0)
    job_type: JobType = JOB_TYPE

    def put(self, body: bytes | str, *, name: str | None = None) -> str:
        """Store a file; its key."""
        self.files += 1
        key = name or f"uploads/{self.files}.csv"
        data = body.encode() if isinstance(body, str) else body
        self.objects.put(ObjectRef(self.settings.s3_bucket, key), data, content_type="text/csv")
        return key

    def submit(self, body: bytes | str, **config: Any) -> UUID:
        """Store a file and submit a job for it; its id."""
        return self.submit_config({"s3_key": self.put(body), **config})

    def submit_config(self, config: dict[str, Any]) -> UUID:
        """Submit a job; its id."""
        request = SubmitJob(
            tenant=self.tenant,
            type=self.job_type.name,
            config=config,
            created_by="tests",
            origin=Origin.NATIVE,
        )
        with self.sessions.begin() as session:
            return stored(session, request, retry=self.job_type.retry).id

    def claim(self, job_id: UUID) -> Job:
        """Take a job as a worker would: running, under the next fence."""
        with self.sessions.begin() as session:
            session.execute(
                text("UPDATE jobs SET state = 'running', fence = fence + 1, worker = :worker WHERE id = :id"),
                {"worker": uuid4(), "id": job_id},
            )
            return jobs.get(session, self.tenant, job_id)

    def context(self, job_id: UUID, **settings: Any) -> RunContext:
        """A hold on the job, under these settings."""
        return RunContext(
            self.claim(job_id),
            settings=self.settings.model_copy(update=settings),
            sessions=self.sessions,
            objects=self.objects,
            clock=SystemClock(),
        )

    def run(self, context: RunContext) -> Result:
        """Run a job to its end, or to what it raises."""
        result = self.job_type.run(context, self.job_type.config.model_validate(context.job.config))
        assert result is not None
        return result

    def load(self, body: bytes | str, *, settings: dict[str, Any] | None = None, **config: Any) -> Result:
        """Store a file, import it, and give the result."""
        return self.run(self.context(self.submit(body, **config), **(settings or {})))

    def rows(self, statement: str, **bound: Any) -> list[tuple[Any, ...]]:
        """What an SQL statement gives."""
        with self.sessions.begin() as session:
            return [tuple(row) for row in session.execute(text(statement), bound)]

    def ledger(self, job_id: UUID | None = None) -> list[tuple[Any, ...]]:
        """Line, code, field and raw text of the refused records, by line."""
        where = "WHERE job_id = :job" if job_id else "WHERE CAST(:job AS uuid) IS NULL"
        return self.rows(f"SELECT line, code, field, raw FROM failed_records {where} ORDER BY line", job=job_id)


@dataclass
class ImportingAny(Importing):
    """The same for jobs of the type ``import``."""

    job_type: JobType = IMPORT

    def submit(self, body: bytes | str, **config: Any) -> UUID:
        """Store a file and submit a job for it; its id."""
        place = {"key": self.put(body), "bucket": self.settings.s3_bucket}
        return self.submit_config({"source": {"s3": place}, "table": "things", **config})
