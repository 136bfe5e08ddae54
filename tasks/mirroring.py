"""What the job types that write a whole table to the search mirror check and do alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.dataplane.mirror.documents import alias_of
from app.dataplane.mirror.rebuilding import rebuild
from app.domain.errors import InvalidRequestError, JobError, Problem
from app.domain.job_types import Result, Submission
from app.domain.jobs import Outcome
from app.services.mirrors import Mirrors
from app.services.tables import Tables

if TYPE_CHECKING:
    from tasks.context import RunContext


def check_mirror(submission: Submission, *, pointer: str) -> None:
    """Refuse where there is no search server.

    Raises:
        InvalidRequestError: ``mirror.off``.
    """
    if not submission.may_mirror:
        detail = "no search server is configured (HAULIER_MIRROR_URL)"
        raise InvalidRequestError(detail, code="mirror.off", problems=(Problem(pointer, detail),))


def mirror_whole(job: RunContext, name: str) -> Result:
    """Build the index of a table anew, put it in place, and tell how both compare."""
    if job.settings.mirror_url is None:
        raise JobError("no search server is configured", code="mirror.off")
    tenant = job.job.tenant
    table = Tables(job.sessions).get(tenant, name)
    Mirrors(job.sessions, job.settings).begin(tenant, table)
    proof, refused = rebuild(job, table)
    index = alias_of(job.settings.mirror_prefix, tenant, name)
    outcome = Outcome.SUCCESS if proof.documents else Outcome.EMPTY
    return Result(
        data={
            "table": name,
            "index": index,
            "rows": proof.rows + refused,
            "documents": proof.documents,
            "refused": refused,
            "checksum": str(proof.row_checksum),
        },
        message=f"{proof.documents} rows of {name} are in the index {index}, with the same checksum",
        outcome=Outcome.PARTIAL if refused else outcome,
    )
