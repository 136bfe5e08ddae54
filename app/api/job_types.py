"""``/v1/job-types``: what can be submitted, each with the JSON schema of its config."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.domain.plugins import names
from app.domain.row_plugins import ENRICHERS, VALIDATORS
from app.domain.sink_plugins import SINKS
from app.web.current import principal, services

blueprint = Blueprint("job_types", __name__, url_prefix="/v1", description="The catalogue of job types.")


class JobTypeSchema(Schema):
    """A job type."""

    name = fields.String()
    summary = fields.String()
    queue = fields.String()
    cheap = fields.Boolean()
    retry = fields.Dict(metadata={"description": "The policy of jobs that bring none."})
    config_schema = fields.Dict(metadata={"description": "JSON schema of the config."})


class JobTypesSchema(Schema):
    """Every job type of this installation."""

    items = fields.List(fields.Nested(JobTypeSchema))
    validators = fields.List(fields.String(), metadata={"description": "For the custom rules of imports."})
    enrichers = fields.List(fields.String(), metadata={"description": "Providers that imports can ask."})
    sinks = fields.List(fields.String(), metadata={"description": "Providers that exports can be brought to."})


@blueprint.route("/job-types")
@blueprint.response(200, JobTypesSchema)
def listed() -> Any:
    """List the job types of this installation."""
    principal()
    return {
        "items": [
            {
                "name": job_type.name,
                "summary": job_type.summary,
                "queue": job_type.queue,
                "cheap": job_type.cheap,
                "retry": job_type.retry.as_json(),
                "config_schema": job_type.config.model_json_schema(),
            }
            for job_type in sorted(services().registry.open, key=lambda job_type: str(job_type.name))
        ],
        "validators": names(VALIDATORS),
        "enrichers": ["http", *names(ENRICHERS)],
        "sinks": names(SINKS),
    }
