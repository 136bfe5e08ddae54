"""``replay_failed_rows``: the rows that an import refused, once more, as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import Field

from app.dataplane.replay import Replay, replay
from app.domain.errors import JobError
from app.domain.job_types import JobConfig, JobType, Result
from app.persistence import jobs
from tasks.loading import target
from tasks.types import import_rows, insert_csv_file
from tasks.types.insert_csv_file import InsertCsvFile

if TYPE_CHECKING:
    from app.domain.jobs import Job
    from tasks.context import RunContext


class ReplayFailedRows(JobConfig):
    """Whose rows, and which."""

    job: UUID = Field(description="The import that refused them.", strict=False)
    codes: list[str] | None = Field(None, min_length=1, max_length=100, description="Only rows refused with these.")


def run(job: RunContext, config: ReplayFailedRows) -> Result:
    """Load what is unresolved; a killed replay goes on behind its last batch."""
    with job.sessions.begin() as session:
        source = jobs.get(session, job.job.tenant, config.job)
    said = _import_config(source)
    origin = (
        insert_csv_file.origin_of(job, said) if isinstance(said, InsertCsvFile) else import_rows.origin_of(job, said)
    )
    return replay(job, Replay(source, target(job, said), said.options(), origin, config.codes))


def _import_config(source: Job) -> InsertCsvFile | import_rows.Import:
    if "import" in (source.checkpoint or {}):
        if source.type == insert_csv_file.JOB_TYPE.name:
            return InsertCsvFile.model_validate(source.config)
        if source.type == import_rows.JOB_TYPE.name:
            return import_rows.Import.model_validate(source.config)
    raise JobError(
        f"job {source.id} of type {source.type} has no rows that can be replayed: it is no import that has begun",
        code="ledger.not_replayable",
    )


JOB_TYPE = JobType(
    name="replay_failed_rows",
    config=ReplayFailedRows,
    run=run,
    summary="Load the rows that an import refused, as they are or as they were corrected.",
)
