"""``housekeeping``: the installation clears up after itself, in jobs that nobody but the system makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from app.domain.job_types import HOUSEKEEPING, JobConfig, JobType, Result
from app.domain.jobs import Outcome
from app.domain.retry import RetryPolicy
from app.persistence import cache, idempotency
from app.services.artifacts import Artifacts
from app.services.leftovers import Leftovers
from app.services.pickers import Pickers

if TYPE_CHECKING:
    from tasks.context import RunContext


class Housekeeping(JobConfig):
    """What there is to do; each duty may be missed, broken off and done again."""

    duty: Literal["clean_up", "sweep", "gather"]


def _clean_up(job: RunContext) -> dict[str, int]:
    """Forget idempotency keys and cached values past their time; remove the files of such artifacts."""
    with job.sessions.begin() as session:
        done = {
            "idempotency_keys": idempotency.prune(session, older_than_s=job.settings.idempotency_ttl_s),
            "cached_values": cache.prune(session),
        }
    job.tell()
    artifacts = Artifacts(job.sessions, job.objects, job.settings, job.clock)
    return {**done, "artifacts": artifacts.remove_expired()}


def _sweep(job: RunContext) -> dict[str, int]:
    """Remove what uploads and exports that broke off have left."""
    leftovers = Leftovers(job.sessions, job.objects, job.settings, job.clock)
    steps = {
        "uploads": leftovers.end_abandoned_uploads,
        "parts": leftovers.drop_orphaned_parts,
        "exports": leftovers.remove_given_up_exports,
        "copies": leftovers.remove_given_up_copies,
    }
    done = {}
    for name, step in steps.items():
        job.tell()
        done[name] = step()
    return done


def _gather(job: RunContext) -> dict[str, int]:
    """Gather values for pickers from the rows that were written since."""
    return {"tables": Pickers(job.sessions).gather_all()}


_DUTIES: Final[Mapping[str, Callable[[RunContext], dict[str, int]]]] = {
    "clean_up": _clean_up,
    "sweep": _sweep,
    "gather": _gather,
}


def run(job: RunContext, config: Housekeeping) -> Result:
    """Do the duty; the result counts what was done."""
    done = _DUTIES[config.duty](job)
    return Result(dict(done), outcome=Outcome.SUCCESS if any(done.values()) else Outcome.EMPTY)


JOB_TYPE = JobType(
    name=HOUSEKEEPING,
    config=Housekeeping,
    run=run,
    queue="small",
    system=True,
    retry=RetryPolicy(maximum_attempts=3, initial_interval_s=5.0),
    summary="Clear up: what is past its time, what broke off.",
)
