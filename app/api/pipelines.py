"""``/v1/pipelines``: named stages that wait for each other, as one job."""

from __future__ import annotations

from typing import Any

from flask import request
from flask_smorest import Blueprint
from marshmallow import fields, post_load, validate

from app.api.accepted import KEY, accepted
from app.api.job_requests import BeginSchema, ChildSchema, OptionsSchema
from app.api.job_schemas import JobSchema
from app.domain.families import OnFailure
from app.domain.pipelines import MAX_STAGES, NAME, Stage
from app.services.pipelines import SubmitPipeline
from app.web.current import actor, services, tenant

blueprint = Blueprint("pipelines", __name__, url_prefix="/v1", description="Stages that wait for each other.")
_EXAMPLE = {"value": "{{ stages.extract.result.value }}"}


class StageSchema(ChildSchema):
    """One stage: a job of a type, after those it depends on."""

    makes = Stage
    name = fields.String(
        required=True,
        validate=validate.Regexp(
            rf"{NAME}\Z", error="expected a letter or '_', then up to 62 letters, digits, '_' or '-', got {input!r}"
        ),
        metadata={"example": "extract"},
    )
    config = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "Its strings may refer to results of stages before it.", "example": _EXAMPLE},
    )
    depends_on = fields.List(
        fields.String(), load_default=list, metadata={"description": "Stages that must have completed."}
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({**data, "depends_on": tuple(data["depends_on"])})


class SubmitPipelineSchema(OptionsSchema, BeginSchema):
    """A pipeline to be made; ``timeout_s`` is for the whole of it."""

    name = fields.String(required=True, validate=validate.Length(1, 255), metadata={"example": "nightly"})
    stages = fields.List(fields.Nested(StageSchema), required=True, validate=validate.Length(1, MAX_STAGES))
    failure_strategy = fields.Enum(
        OnFailure,
        by_value=True,
        load_default=OnFailure.STOP,
        metadata={"description": "What a stage that fails for good does to those that have not begun."},
    )
    stage_retries = fields.Integer(
        load_default=1,
        strict=True,
        validate=validate.Range(1, 10),
        metadata={"description": "With `retry`: how often a stage is run again as a whole, attempts and all."},
    )
    parallelism = fields.Integer(
        load_default=5, strict=True, validate=validate.Range(1, MAX_STAGES), metadata={"description": "Stages at once."}
    )


@blueprint.route("/pipelines", methods=["POST"])
@blueprint.arguments(SubmitPipelineSchema())
@blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
@blueprint.doc(parameters=[KEY])
def create(body: dict[str, Any]) -> Any:
    """Accept a pipeline: its stages are the children of the job."""
    submitted = services().pipelines.create(
        SubmitPipeline(tenant=tenant(), created_by=actor(), **body),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return accepted(submitted.job, replayed=submitted.replayed)
