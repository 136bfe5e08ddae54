"""``/v1/queries``: a whole answer, at once or by a job."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from flask_smorest import Blueprint

from app.api.accepted import KEY, headers_of
from app.api.query_schemas import DeferredSchema, QueryRequestSchema
from app.dataplane.export_formats import content_type_of
from app.domain.queries import Estimate, Mode
from app.services.queries import Asked, Deferred
from app.web.current import actor, services, tenant

blueprint = Blueprint("queries", __name__, url_prefix="/v1", description="Queries that are answered whole.")
_PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "description": "respond-async asks for a job.",
}


@blueprint.route("/queries", methods=["POST"])
@blueprint.arguments(QueryRequestSchema())
@blueprint.response(202, DeferredSchema, headers={"Location": {"schema": {"type": "string"}}})
@blueprint.alt_response(200, description="The rows, in the format asked for; its estimate is in the headers.")
@blueprint.doc(parameters=[KEY, _PREFER])
def ask(body: dict[str, Any]) -> Any:
    """Answer a query whole: at once when it is small, else by a job that exports it.

    What is small, and how many are answered at once, is settings'. An answer that broke off ends with a line that
    begins with ``!error`` (in csv behind a quote), or lacks the end of its compressed file.
    """
    prefers_job = _prefers_job()
    asked = Asked(**body | ({"mode": Mode.JOB} if prefers_job else {}))
    answer = services().queries.ask(
        tenant(), asked, actor=actor(), idempotency_key=request.headers.get("Idempotency-Key")
    )
    if isinstance(answer, Deferred):
        return _deferred(answer, preferred=prefers_job)
    headers = {**_said(answer.estimate), "Haulier-Query-Mode": "stream", "Cache-Control": "no-store"}
    content_type = content_type_of(asked.file_format, asked.compression)
    response = Response(answer.blocks, 200, headers, content_type=content_type)
    response.call_on_close(answer.close)
    return response


def _prefers_job() -> bool:
    wishes = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(wish.partition(";")[0].strip().lower() == "respond-async" for wish in wishes)


def _said(estimate: Estimate) -> dict[str, str]:
    return {
        "Haulier-Estimated-Rows": str(estimate.rows),
        "Haulier-Estimated-Bytes": str(estimate.bytes),
        "Haulier-Estimated-Cost": f"{estimate.cost:.0f}",
    }


def _deferred(answer: Deferred, *, preferred: bool) -> Any:
    job = answer.submitted.job
    headers = {**headers_of(job, replayed=answer.submitted.replayed), **_said(answer.estimate)}
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    kept = job.dialect.get("query") or {}
    return {"reason": kept.get("reason", answer.reason), "estimate": answer.estimate, "job": job}, 202, headers
