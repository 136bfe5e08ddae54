"""``/v1/jobs``: submit, read, list, cancel, retry, clone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID
from zlib import crc32

from flask import Response, make_response, request
from flask.views import MethodView
from flask_smorest import Blueprint
from webargs.flaskparser import parser

from app.api.accepted import KEY, accepted
from app.api.artifacts import absolute
from app.api.job_requests import (
    AmendSchema,
    BatchGetSchema,
    JobListQuerySchema,
    JobQuerySchema,
    SubmitJobSchema,
    TrailQuerySchema,
    WaitQuerySchema,
    filters_of,
)
from app.api.job_schemas import (
    BatchSchema,
    ErrorPageSchema,
    JobPageSchema,
    JobSchema,
    ResultSchema,
    TerminatedSchema,
    WhySchema,
    job_body,
    job_json,
    trail_body,
)
from app.domain.artifacts import ArtifactKind
from app.domain.error_codes import docs_url
from app.domain.jobs import Job, JobEvent, Outcome, SubmitJob
from app.domain.lifecycle import TERMINAL, WAITING, JobState
from app.domain.progress import overall
from app.web.current import actor, require_admin, services, tenant
from app.web.paging import decode_cursor, encode_cursor, link_next, page

blueprint = Blueprint("jobs", __name__, url_prefix="/v1", description="Jobs: one execution each of a job type.")
_WAIT = WaitQuerySchema()


@blueprint.route("/jobs")
class Jobs(MethodView):
    """The collection."""

    @blueprint.arguments(SubmitJobSchema())
    @blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
    @blueprint.doc(
        parameters=[
            KEY,
            {"in": "query", "name": "wait", "schema": {"type": "number", "minimum": 0, "maximum": 60, "default": 0}},
        ]
    )
    def post(self, body: dict[str, Any]) -> Any:
        """Accept a job; it starts when a worker is free. An import into a workbook is a batch of imports.

        The same ``Idempotency-Key`` with the same body answers with the job the first request made. With ``wait`` the
        answer comes when the job has ended, or after that many seconds.
        """
        # The arguments' own parser only when there are any: most submits have none.
        wait_s = parser.parse(_WAIT, request, location="query")["wait"] if request.args else 0.0
        submitted = services().workbooks.submit(
            SubmitJob(tenant=tenant(), created_by=actor(), **body),
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        return accepted(_waited(submitted.job, wait_s), replayed=submitted.replayed)

    @blueprint.arguments(JobListQuerySchema(), location="query", unknown="raise")
    @blueprint.response(200, JobPageSchema)
    def get(self, query: dict[str, Any]) -> Any:
        """List jobs, newest first."""
        if query["system"]:
            require_admin()
        limit = query["limit"]
        jobs = services().jobs.find(tenant(), filters_of(query), limit=limit + 1, before=decode_cursor(query["cursor"]))
        next_cursor = encode_cursor(jobs[limit - 1].id) if len(jobs) > limit else None
        body = JobPageSchema().dump(page(jobs[:limit], next_cursor))
        if query["why"]:
            whys = services().steering.why_waiting(tenant(), [job.id for job in jobs[:limit]])
            for item, why in zip(body["items"], whys, strict=True):
                item["why_waiting"] = WhySchema().dump(why) if why else None
        return link_next(make_response(body), next_cursor)


@blueprint.route("/jobs:batchGet", methods=["POST"])
@blueprint.arguments(BatchGetSchema())
@blueprint.response(200, BatchSchema)
def batch_get(body: dict[str, Any]) -> Any:
    """Read up to 1000 jobs at once, in the order asked; missing ones are marked."""
    found = services().jobs.batch_get(tenant(), body["ids"])
    known = [job for job in found if job is not None]
    far = overall([(job.progress, job.progress.percent(ended=job.state is JobState.COMPLETED)) for job in known])
    return {
        "items": [{"id": job_id, "job": job} for job_id, job in zip(body["ids"], found, strict=True)],
        "all_terminal": len(known) == len(found) and all(job.is_terminal for job in known),
        "all_succeeded": len(known) == len(found) and all(job.state is JobState.COMPLETED for job in known),
        **asdict(far),
    }


@blueprint.route("/jobs:query", methods=["POST"])
@blueprint.arguments(JobQuerySchema())
@blueprint.response(200, JobPageSchema)
def query(body: dict[str, Any]) -> Any:
    """List jobs by VQL (docs/vql.md): conditions, order and cursors as for records; newest first without an order."""
    found = services().job_search.find(
        tenant(), body["vql"], limit=body["limit"], cursor=body["cursor"], pointer="/vql"
    )
    return page(found.jobs, found.next_cursor)


@blueprint.route("/jobs/<uuid:job_id>", endpoint="Job")
class OneJob(MethodView):
    """One job."""

    @blueprint.arguments(WaitQuerySchema(), location="query")
    @blueprint.response(200, JobSchema, headers={"ETag": {"schema": {"type": "string"}}})
    @blueprint.alt_response(304, description="Not changed since the ETag in If-None-Match.")
    def get(self, query: dict[str, Any], job_id: UUID) -> Any:
        """Read a job; with ``wait``, when it has ended or after that many seconds."""
        job = _waited(services().jobs.get(tenant(), job_id), query["wait"])
        why = services().steering.why_waiting(tenant(), [job_id])[0] if job.state in WAITING else None
        ratios = services().statistics.past_ratios(tenant(), job.type) if job.state is JobState.RUNNING else ()
        response = Response(job_json(job, why, ratios), mimetype="application/json")
        reasons = f"-{crc32(repr((why.reasons, why.position)).encode()):x}" if why else ""
        response.set_etag(f"{job.event_no}-{job.updated_at.timestamp():.6f}{reasons}")
        if not job.is_terminal:
            response.headers["Retry-After"] = "1"
        return response.make_conditional(request)

    @blueprint.response(200, JobSchema)
    def delete(self, job_id: UUID) -> Job:
        """Cancel a job (the same as ``:cancel``)."""
        return services().control.cancel(tenant(), job_id, actor=actor())


def _waited(job: Job, wait_s: float) -> Job:
    if wait_s <= 0 or job.is_terminal:
        return job
    return services().waits.wait(job.id, timeout_s=wait_s) or services().jobs.get(tenant(), job.id)


@blueprint.route("/jobs/<uuid:job_id>:cancel", methods=["POST"])
@blueprint.response(200, JobSchema)
def cancel(job_id: UUID) -> Job:
    """End a waiting job now; ask a running one to stop."""
    return services().control.cancel(tenant(), job_id, actor=actor())


@blueprint.route("/jobs/<uuid:job_id>:terminate", methods=["POST"])
@blueprint.response(200, TerminatedSchema)
def terminate(job_id: UUID) -> Any:
    """End a job now, without grace; a batch with its payloads. What it does after is refused by its fence."""
    return services().control.terminate(tenant(), job_id, actor=actor())


@blueprint.route("/jobs/<uuid:job_id>:retry", methods=["POST"])
@blueprint.arguments(AmendSchema, required=False)
@blueprint.response(200, JobSchema)
def retry(body: dict[str, Any], job_id: UUID) -> Job:
    """Open a failed or cancelled job again; it goes on from its checkpoint, a family with what has not completed."""
    return services().amendments.retry(tenant(), job_id, body["config"], actor=actor())


@blueprint.route("/jobs/<uuid:job_id>:pause", methods=["POST"])
@blueprint.response(200, JobSchema)
def pause(job_id: UUID) -> Job:
    """Keep a job from starting; one that runs stops at its next checkpoint."""
    return services().control.pause(tenant(), job_id, actor=actor())


@blueprint.route("/jobs/<uuid:job_id>:resume", methods=["POST"])
@blueprint.arguments(AmendSchema, required=False)
@blueprint.response(200, JobSchema)
def resume(body: dict[str, Any], job_id: UUID) -> Job:
    """Let a paused job go on from its checkpoint."""
    return services().amendments.resume(tenant(), job_id, body["config"], actor=actor())


@blueprint.route("/jobs/<uuid:job_id>:clone", methods=["POST"])
@blueprint.response(202, JobSchema)
def clone(job_id: UUID) -> Any:
    """Make a new job with the same type, config and options; a family with the payloads or stages it was given."""
    return accepted(services().clones.clone(tenant(), job_id, actor=actor()))


@blueprint.route("/jobs/<uuid:job_id>/errors")
@blueprint.arguments(TrailQuerySchema(), location="query")
@blueprint.response(200, ErrorPageSchema)
def errors(query: dict[str, Any], job_id: UUID) -> Any:
    """Read why attempts of a job failed, oldest first."""
    found = services().jobs.events(tenant(), job_id, after=query["after"], limit=query["limit"], errors=True)
    return {**trail_body(found, query["limit"]), "items": [_error(event) for event in found]}


def _error(event: JobEvent) -> dict[str, Any]:
    said = event.data["error"]
    return {**said, "docs_url": docs_url(said["code"]), "at": event.at, "number": event.number}


@blueprint.route("/jobs/<uuid:job_id>/result")
@blueprint.response(200, ResultSchema)
def result(job_id: UUID) -> Any:
    """Read what a job came to; 409 while it has not ended."""
    job = services().jobs.require(tenant(), job_id, TERMINAL)
    body = job_body(job)
    return {
        "job_id": job.id,
        "state": job.state,
        "outcome": job.outcome,
        "record_count": job.progress.rows_done if job.outcome is not Outcome.EMPTY else 0,
        "error_count": job.error_count,
        "duration_ms": body["duration_ms"],
        "counters": job.counters,
        "metrics": body["metrics"],
        "data": job.result,
        **_exported(job),
    }


def _exported(job: Job) -> dict[str, str | None]:
    """What an export wrote: a fresh link to it, and itself when it is one small text."""
    found = [one for one in services().artifacts.of_job(job.tenant, job.id) if one.artifact.kind is ArtifactKind.EXPORT]
    whole = found[0].artifact if len(found) == 1 and found[0].link is not None else None
    return {
        "inline": None if whole is None else services().downloads.inline(whole),
        "file_url": absolute(found[0].url) if found else None,
    }
