"""Results that go to sinks: how they are asked for, what a line of them is, and the jobs that take them there."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.job_schemas import FinishedJobSchema
from app.domain.lifecycle import TERMINAL
from app.persistence.results import VERSION
from app.web.current import services, tenant

blueprint = Blueprint("deliveries", __name__, url_prefix="/v1", description="Results of batches, taken to sinks.")


class ResultsSinkSchema(Schema):
    """A sink of the tenant by its ``name``, or the ``provider`` of a package."""

    name = fields.String(validate=validate.Length(1, 63), metadata={"description": "As in PUT /v1/sinks/{name}."})
    provider = fields.String(validate=validate.Length(1, 255))
    config = fields.Dict(keys=fields.String(), metadata={"description": "The provider's own."})
    key = fields.String(
        validate=validate.Length(1, 500),
        metadata={"description": "Name of the file, with {job_id} {date} {schedule_id}: the batch's."},
    )


class ResultLineSchema(Schema):
    """What one payload came to: a line of a file of results, or the body of a post."""

    version = fields.Constant(VERSION, metadata={"type": "integer", "const": VERSION})
    tenant = fields.String()
    schedule_id = fields.UUID(allow_none=True, metadata={"description": "The schedule that made the batch."})
    batch_id = fields.UUID()
    id = fields.UUID(metadata={"description": "Of the payload's job."})
    number = fields.Integer(metadata={"description": "Its place in the batch, from 0."})
    name = fields.String(allow_none=True)
    type = fields.String()
    parameters = fields.Dict(metadata={"description": "The config it was given."})
    state = fields.String(validate=validate.OneOf(sorted(TERMINAL)))
    outcome = fields.String(allow_none=True)
    attempts = fields.Integer()
    result = fields.Dict(allow_none=True)
    error = fields.Dict(allow_none=True)
    created_at = fields.AwareDateTime()
    started_at = fields.AwareDateTime(allow_none=True)
    finished_at = fields.AwareDateTime(allow_none=True)


class DeliveriesSchema(Schema):
    """The jobs that take a batch's results to its sink, the last one last."""

    items = fields.List(fields.Nested(FinishedJobSchema))


@blueprint.route("/jobs/<uuid:job_id>/deliveries")
@blueprint.response(200, DeliveriesSchema)
def listed(job_id: UUID) -> Any:
    """List the jobs that take what this batch came to to its sink: what each came to itself, and why one failed."""
    return {"items": services().families.deliveries(tenant(), job_id)}
