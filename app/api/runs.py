"""``/v1/runs``: one payload directly, answered with its result when it ends in time."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import fields, validate

from app.api.accepted import KEY
from app.api.job_requests import SubmitJobSchema
from app.api.job_schemas import FinishedJobSchema, finished_job_json
from app.domain.jobs import SubmitJob
from app.web.current import actor, services, tenant

blueprint = Blueprint("runs", __name__, url_prefix="/v1", description="One payload, run at once.")


class RunSchema(SubmitJobSchema):
    """A job to be made, and how long its end is waited for."""

    wait_s = fields.Float(load_default=10.0, validate=validate.Range(0, 30))


@blueprint.route("/runs", methods=["POST"])
@blueprint.arguments(RunSchema())
@blueprint.response(200, FinishedJobSchema)
@blueprint.alt_response(202, schema=FinishedJobSchema, description="It has not ended; Location says where to look.")
@blueprint.doc(parameters=[KEY])
def run(body: dict[str, Any]) -> Any:
    """Run a payload; 200 with its result when it ended within ``wait_s``, else 202.

    While every waiting place is taken nobody is made to wait, and the answer is 202 at once.
    """
    wait_s = body.pop("wait_s")
    submitted = services().jobs.submit(
        SubmitJob(tenant=tenant(), created_by=actor(), **body), idempotency_key=request.headers.get("Idempotency-Key")
    )
    job = services().waits.end_or_now(submitted.job, timeout_s=wait_s)
    headers = {"Location": f"{blueprint.url_prefix}/jobs/{job.id}"}
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if not job.is_terminal:
        headers["Retry-After"] = "1"
    return Response(finished_job_json(job), 200 if job.is_terminal else 202, headers, mimetype="application/json")
