"""``/v1/jobs/{id}/log`` and ``/report``: files that every job has, made when they are asked for."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from flask import Response, make_response
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.failed_records import FailedGroupSchema
from app.api.import_batches import ImportBatchSchema
from app.api.job_schemas import JobErrorSchema, JobSchema
from app.domain.error_codes import docs_url
from app.services.job_files import Position
from app.web.current import services, tenant
from app.web.linked import LinkedSchema

blueprint = Blueprint("job_files", __name__, url_prefix="/v1", description="A job's log and report.")

_NEXT: Final = "Log-Position"
_TEXT: Final = {"type": "string"}


class LogQuerySchema(LinkedSchema):
    """From where on."""

    after = fields.String(
        load_default="0.0.0",
        validate=validate.Regexp(r"^[0-9]{1,9}(\.[0-9]{1,9}){2}$(?!\n)"),
        metadata={"description": "The position of the last line seen: only what came since is read."},
    )


class ReportSchema(Schema):
    """What a job came to."""

    job = fields.Nested(JobSchema)
    books = fields.Dict(keys=fields.String(), values=fields.Integer())
    batches = fields.List(fields.Nested(ImportBatchSchema), metadata={"description": "Of an import, the first 1,000."})
    errors = fields.List(fields.Nested(JobErrorSchema))
    failed_rows = fields.List(
        fields.Nested(FailedGroupSchema), metadata={"description": "Rows that were refused, by code and field."}
    )


@blueprint.route("/jobs/<uuid:job_id>/log")
@blueprint.arguments(LogQuerySchema, location="query", unknown="raise")
@blueprint.response(200, _TEXT, content_type="application/x-ndjson", headers={_NEXT: {"schema": _TEXT}})
def log(query: dict[str, Any], job_id: UUID) -> Response:
    """Read what happened to a job and what its type logged, a JSON object a line; while it runs and after."""
    after = Position(*map(int, query["after"].split(".")))
    lines, position = services().job_files.log(tenant(), job_id, after)
    body = "".join(json.dumps(line) + "\n" for line in lines)
    response = Response(body, mimetype="application/x-ndjson")
    response.headers[_NEXT] = str(position)
    response.headers["Content-Disposition"] = f'attachment; filename="log-{job_id}.ndjson"'
    return response


@blueprint.route("/jobs/<uuid:job_id>/report")
@blueprint.arguments(LinkedSchema, location="query", unknown="raise")
@blueprint.response(200, ReportSchema)
def report(_query: dict[str, Any], job_id: UUID) -> Response:
    """Read what a job came to: its books, its batches, its errors, and the rows it refused by kind."""
    found = services().job_files.report(tenant(), job_id)
    errors = [{**error, "docs_url": docs_url(error["code"])} for error in found["errors"]]
    response = make_response(ReportSchema().dump({**found, "errors": errors}))
    response.headers["Content-Disposition"] = f'attachment; filename="report-{job_id}.json"'
    return response
