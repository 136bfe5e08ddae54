"""How far jobs are together: those of a label, and the children of one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.job_requests import IS_LABEL, JobListQuerySchema, filters_of
from app.domain.progress import SetProgress
from app.persistence.job_lists import Filters
from app.web.current import services, tenant

blueprint = Blueprint("progress", __name__, url_prefix="/v1", description="How far many jobs are together.")


class LabelledSchema(JobListQuerySchema):
    """Which jobs: those of these labels."""

    class Meta:
        """Unknown arguments are refused."""

        unknown = "raise"
        exclude = ("system", "why", "limit", "cursor")

    label = fields.List(
        fields.String(validate=IS_LABEL),
        required=True,
        validate=validate.Length(1),
        metadata={"description": "name=value; of several, all must hold."},
    )


class SetProgressSchema(Schema):
    """How far jobs are together."""

    jobs = fields.Integer()
    completed = fields.Integer()
    failed = fields.Integer()
    cancelled = fields.Integer()
    all_terminal = fields.Boolean()
    all_succeeded = fields.Boolean()
    rows_done = fields.Integer()
    rows_total = fields.Integer(allow_none=True, metadata={"description": "Null while some job has no total."})
    mean_percent = fields.Float(metadata={"description": "Each job counts the same; 100 when there is none."})
    weighted_percent = fields.Float(
        allow_none=True,
        metadata={"description": "Each row counts the same; null while some job has no total, and without rows."},
    )


@blueprint.route("/jobs:progress")
@blueprint.arguments(LabelledSchema(), location="query", unknown="raise")
@blueprint.response(200, SetProgressSchema)
def of_label(query: dict[str, Any]) -> SetProgress:
    """How far the jobs of a label are together; the other filters are those of the list."""
    return services().job_search.progress(tenant(), filters_of({**query, "system": False}))


@blueprint.route("/jobs/<uuid:job_id>/children:progress")
@blueprint.response(200, SetProgressSchema)
def of_children(job_id: UUID) -> SetProgress:
    """How far the children of a job are together; ``children:count`` tells where they stand for less."""
    services().jobs.get(tenant(), job_id)
    return services().job_search.progress(tenant(), Filters(parent_id=job_id))
