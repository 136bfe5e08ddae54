"""``/v1/jobs/{id}/batches``: an import batch by batch; ``/v1/tables/{name}/batch-report``: which size suits a table."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import make_response
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.web.current import services, tenant
from app.web.paging import link_next

blueprint = Blueprint("import_batches", __name__, url_prefix="/v1", description="Imports batch by batch.")


class ImportBatchSchema(Schema):
    """A batch that is in the table, as far as its lanes have come."""

    batch = fields.Integer(metadata={"description": "Its number in the file, from 0."})
    lanes = fields.Integer(metadata={"description": "How many have committed their part of it."})
    first_line = fields.Integer()
    last_line = fields.Integer()
    first_byte = fields.Integer(metadata={"description": "In the decompressed file."})
    end_byte = fields.Integer(metadata={"description": "Exclusive."})
    rows = fields.Integer()
    failed = fields.Integer(metadata={"description": "Rows that were refused."})
    seconds = fields.Float(metadata={"description": "What its slowest lane took, repeated tries included."})
    rows_per_s = fields.Float(allow_none=True)


class ImportBatchPageSchema(Schema):
    """A page of batches, in the order of the file."""

    items = fields.List(fields.Nested(ImportBatchSchema))
    next_after = fields.Integer(allow_none=True)
    batch_size = fields.Integer(
        allow_none=True, metadata={"description": "Null before the first one, and of a job that is no import."}
    )
    parallel_batches = fields.Integer(allow_none=True, metadata={"description": "Lanes that write them."})
    batches = fields.Integer(metadata={"description": "How many some lane has committed so far."})


class ImportBatchQuerySchema(Schema):
    """Which batches."""

    after = fields.Integer(
        load_default=-1,
        validate=validate.Range(-1, 2**63 - 1),
        metadata={"description": "Number of the last one seen."},
    )
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class SizeUseSchema(Schema):
    """What imports with one batch size came to."""

    batch_size = fields.Integer()
    jobs = fields.Integer(metadata={"description": "Completed imports of at least one full batch."})
    rows = fields.Integer()
    failed = fields.Integer(metadata={"description": "Rows that were refused."})
    seconds = fields.Float(metadata={"description": "What their slowest lanes took, together."})
    rows_per_s = fields.Float(metadata={"description": "Of the median import, while its lanes wrote."})


class BatchReportSchema(Schema):
    """Batch sizes of imports into a table, and the one that suits it."""

    table = fields.String()
    days = fields.Integer()
    items = fields.List(fields.Nested(SizeUseSchema))
    suggested_batch_size = fields.Integer(
        allow_none=True, attribute="suggestion.batch_size", metadata={"description": "Null when too little is known."}
    )
    reason = fields.String(attribute="suggestion.reason")


class BatchReportQuerySchema(Schema):
    """Which imports."""

    days = fields.Integer(
        load_default=30, validate=validate.Range(1, 365), metadata={"description": "Submitted since so many days."}
    )


@blueprint.route("/jobs/<uuid:job_id>/batches")
@blueprint.arguments(ImportBatchQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, ImportBatchPageSchema)
def of_job(query: dict[str, Any], job_id: UUID) -> Any:
    """List the batches of an import with their rows and seconds; of another job there are none."""
    limit = query["limit"]
    found = services().import_batches.page(tenant(), job_id, after=query["after"], limit=limit + 1)
    more = found.items[limit - 1].batch if len(found.items) > limit else None
    body = {**ImportBatchPageSchema().dump(found), "next_after": more}
    body["items"] = body["items"][:limit]
    return link_next(make_response(body), None if more is None else str(more), argument="after")


@blueprint.route("/tables/<string:name>/batch-report")
@blueprint.arguments(BatchReportQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, BatchReportSchema)
def report(query: dict[str, Any], name: str) -> Any:
    """Compare the batch sizes of imports into a table by their rows/s, and suggest one."""
    return services().import_batches.report(tenant(), name, days=query["days"])
