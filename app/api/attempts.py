"""``/v1/jobs/{id}/attempts``: every time a worker began a job, and what came of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import make_response
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.web.current import services, tenant
from app.web.paging import link_next

blueprint = Blueprint("attempts", __name__, url_prefix="/v1", description="Attempts at jobs, rescues too.")


class AttemptSchema(Schema):
    """One hold of a worker on a job."""

    fence = fields.Integer(metadata={"description": "Counts every start of the job, from 1."})
    attempt = fields.Integer(
        metadata={"description": "By the policy: a rescue and the attempt after it have the same."}
    )
    is_counted = fields.Boolean(metadata={"description": "False for a worker that was lost or shut down."})
    worker = fields.UUID(metadata={"description": "The worker slot."})
    worker_name = fields.String()
    started_at = fields.AwareDateTime()
    ended_at = fields.AwareDateTime(allow_none=True)
    outcome = fields.String(
        metadata={"description": "running, completed, retrying, failed, cancelled, rescued or handed_back."}
    )
    error = fields.Dict(allow_none=True)
    reason = fields.String(allow_none=True, metadata={"description": "Of a rescue, a hand-back or a cancellation."})
    rows_done = fields.Integer(metadata={"description": "The job's rows when the attempt ended."})
    wait_s = fields.Float(allow_none=True, metadata={"description": "The wait for the next attempt."})


class AttemptPageSchema(Schema):
    """A page of attempts, in order."""

    items = fields.List(fields.Nested(AttemptSchema))
    next_after = fields.Integer(allow_none=True)


class AttemptQuerySchema(Schema):
    """Which attempts."""

    after = fields.Integer(
        load_default=0, validate=validate.Range(0, 2**31 - 1), metadata={"description": "Fence of the last one seen."}
    )
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


@blueprint.route("/jobs/<uuid:job_id>/attempts")
@blueprint.arguments(AttemptQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, AttemptPageSchema)
def of_job(query: dict[str, Any], job_id: UUID) -> Any:
    """List the attempts at a job, those that a lost worker broke off too."""
    limit = query["limit"]
    found = services().attempts.page(tenant(), job_id, after=query["after"], limit=limit + 1)
    more = found[limit - 1].fence if len(found) > limit else None
    body = AttemptPageSchema().dump({"items": found[:limit], "next_after": more})
    return link_next(make_response(body), None if more is None else str(more), argument="after")
