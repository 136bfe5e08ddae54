"""How the tests of exports run a job without a worker, and look at what it wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.job_types import Result
from app.domain.jobs import Job, SubmitJob
from app.domain.ports import ObjectRef
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.export_rows import JOB_TYPE
from tests.factories import stored


@dataclass
class Exporting:
    """One installation's stores, and the exports that ran there."""

    settings: Settings
    sessions: Sessions
    objects: S3Store
    jobs: list[Job] = field(default_factory=list)

    @property
    def created_at(self) -> datetime:
        """When the last job was submitted."""
        return self.jobs[-1].created_at

    def submit(self, table: str, **config: Any) -> Job:
        """A job that a worker holds."""
        request = SubmitJob("default", JOB_TYPE.name, {"table": table, **config}, "test")
        with self.sessions.begin() as session:
            job = stored(session, request)
        self.jobs.append(self.claim(job))
        return self.jobs[-1]

    def claim(self, job: Job) -> Job:
        """The job as a worker holds it now, whoever held it before."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET state = 'running', fence = fence + 1 WHERE id = :id"), {"id": job.id})
            return jobs.get(session, job.tenant, job.id)

    def seen(self, job: Job) -> Job:
        """The job as it is now."""
        with self.sessions.begin() as session:
            return jobs.get(session, job.tenant, job.id)

    def run(self, job: Job, objects: Any = None) -> Result:
        """Run a held job to its end, or to what it raises."""
        result = JOB_TYPE.run(self.context(job, objects), JOB_TYPE.config.model_validate(job.config))
        assert result is not None
        return result

    def context(self, job: Job, objects: Any = None) -> RunContext:
        """What a held job is given to run with."""
        return RunContext(
            job,
            settings=self.settings,
            sessions=self.sessions,
            objects=objects or self.objects,
            clock=SystemClock(),
        )

    def export(self, table: str, **config: Any) -> Result:
        """Submit and run."""
        return self.run(self.submit(table, **config))

    def read(self, key: str) -> bytes:
        """An object of the tenant."""
        with self.objects.open(ObjectRef(self.settings.s3_bucket, key)) as reader:
            return reader.read()

    def body(self, result: Result) -> bytes:
        """The first file."""
        return self.read(result.data["s3_key"])

    def manifest(self, result: Result) -> dict[str, Any]:
        """The manifest."""
        manifest: dict[str, Any] = json.loads(self.read(result.data["manifest_key"]))
        return manifest
