"""``mirror_changes``: what requests and jobs that are over wrote to a table goes to its search mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.dataplane.mirror.feeding import Feed, counters, remove_dropped
from app.dataplane.mirror.server import SearchServer
from app.domain.job_types import JobConfig, JobType, Result
from app.domain.jobs import Outcome
from app.domain.retry import RetryPolicy
from app.persistence import jobs
from app.services.tables import Tables

if TYPE_CHECKING:
    from tasks.context import RunContext


class MirrorChanges(JobConfig):
    """Which table."""

    table: str


def run(job: RunContext, config: MirrorChanges) -> Result:
    """Write change after change until none is left; remove the index of a table that was dropped."""
    server = SearchServer(job.settings, job, job.wait)
    if remove_dropped(job, server, config.table):
        return Result(message=f"{config.table} was dropped, and so is its index")
    feed = Feed(job, server, Tables(job.sessions).get(job.job.tenant, config.table))
    feed.prepare()
    while feed.once(of=None):
        job.check()
    with job.sessions.begin() as session:
        counts = jobs.get(session, job.job.tenant, job.id).counters
    mirrored, refused = (counts.get(name, 0) for name in counters(config.table))
    outcome = Outcome.PARTIAL if refused else Outcome.SUCCESS if mirrored else Outcome.EMPTY
    return Result(
        data={"table": config.table, "index": feed.alias, "mirrored": mirrored, "refused": refused},
        message=f"{mirrored} rows of {config.table} are in the mirror",
        outcome=outcome,
    )


JOB_TYPE = JobType(
    name="mirror_changes",
    config=MirrorChanges,
    run=run,
    system=True,
    # Else a server that refuses everything would be the end of a job each minute.
    retry=RetryPolicy(maximum_attempts=10, maximum_interval_s=600.0, transient_only=False),
    summary="Bring a table's search mirror up to date.",
)
