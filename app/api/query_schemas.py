"""What queries, their plans and their answers look like on the native API."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from app.api.job_requests import OptionsSchema
from app.api.job_schemas import JobSchema
from app.dataplane.explaining import MS_PER_COST, Explained
from app.domain.jobs import Priority
from app.domain.queries import Mode, Reason
from app.services.queries import PREVIEW_ROWS

STREAMED_FORMATS = ("ndjson", "csv", "json")
VQL = fields.Dict(
    keys=fields.String(),
    load_default=dict,
    metadata={
        "description": "where, select_columns, order_by, search_after, limit (docs/vql.md).",
        "example": {"where": {"keyword_match": {"must": {"country": ["DE", "FR"]}}}},
    },
)


class EstimateSchema(Schema):
    """The planner's guess."""

    rows = fields.Integer()
    bytes = fields.Integer(metadata={"description": "Of the answer, before compression."})
    cost = fields.Float(metadata={"description": "In the planner's units: about pages read in order."})


class StepSchema(Schema):
    """One step of a plan; those below it, one deeper, come first in time."""

    depth = fields.Integer()
    does = fields.String(metadata={"example": "Index Scan"})
    table = fields.String(allow_none=True)
    index = fields.String(allow_none=True)
    rows = fields.Integer()
    cost = fields.Float()


class ExplainRequestSchema(Schema):
    """Which query."""

    vql = VQL
    format = fields.String(load_default="csv", validate=validate.OneOf(STREAMED_FORMATS))


class ExplainSchema(Schema):
    """How a query would run as an export."""

    estimate = fields.Nested(EstimateSchema)
    estimated_ms = fields.Integer(
        metadata={"description": f"{MS_PER_COST:g} ms for each unit of cost: of the right order at best."}
    )
    becomes_job = fields.String(
        allow_none=True,
        validate=validate.OneOf(list(Reason)),
        metadata={"description": "Why POST /v1/queries would make it a job now; null: it would answer at once."},
    )
    indexes = fields.List(fields.String(), metadata={"description": "Those that would be used."})
    whole_tables = fields.List(fields.String(), metadata={"description": "Tables that would be read from end to end."})
    plan = fields.List(fields.Nested(StepSchema))
    sql = fields.String()
    parameters = fields.Dict(metadata={"description": "The values in the SQL, by their names there."})


class RecordPreviewRequestSchema(Schema):
    """Which query, and how much of it."""

    vql = VQL
    limit = fields.Integer(load_default=PREVIEW_ROWS, strict=True, validate=validate.Range(1, 100))


class RecordPreviewSchema(ExplainSchema):
    """The first rows, and how the whole query would run."""

    items = fields.List(fields.Dict())


class QueryRequestSchema(OptionsSchema):
    """A query, and how its answer is wanted; the options are the job's, if it becomes one."""

    table = fields.String(required=True, validate=validate.Length(1, 63), metadata={"example": "contacts"})
    vql = VQL
    mode = fields.Enum(
        Mode,
        by_value=True,
        load_default=Mode.AUTO,
        metadata={"description": "auto answers at once what is small, and makes a job of what is not."},
    )
    format = fields.String(load_default="ndjson", validate=validate.OneOf(STREAMED_FORMATS))
    compression = fields.String(load_default="none", validate=validate.OneOf(["none", "gzip", "zstd"]))
    header = fields.Boolean(load_default=True, metadata={"description": "Of csv."})

    @post_load
    def _priority(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        file_format = data.pop("format")
        return {**data, "priority": Priority[data["priority"].upper()], "file_format": file_format}


class DeferredSchema(Schema):
    """A job will answer."""

    mode = fields.Constant("job")
    reason = fields.String(validate=validate.OneOf(list(Reason)))
    estimate = fields.Nested(EstimateSchema)
    job = fields.Nested(JobSchema)


def explained_body(explained: Explained, becomes_job: Reason | None) -> dict[str, Any]:
    """The values of ``ExplainSchema``."""
    return {
        "estimate": explained.estimate,
        "estimated_ms": round(explained.estimate.cost * MS_PER_COST),
        "becomes_job": becomes_job,
        "indexes": explained.indexes,
        "whole_tables": explained.whole_tables,
        "plan": explained.steps,
        "sql": explained.sql,
        "parameters": explained.parameters,
    }
