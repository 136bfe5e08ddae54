"""``/v1/jobs/{id}/failed-records``: the ledger, by pages or as one CSV download."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from flask import Response, make_response, request
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.accepted import KEY, accepted
from app.api.job_schemas import JobSchema
from app.api.table_schemas import RecordSchema
from app.domain.failed_records import FailedRecord, record_id
from app.web.current import actor, services, tenant
from app.web.linked import LinkedSchema
from app.web.paging import link_next, page

blueprint = Blueprint("failed_records", __name__, url_prefix="/v1", description="Rows that jobs refused, and why.")


class FailedRecordSchema(Schema):
    """A refused row."""

    id = fields.String(metadata={"description": "The job's id and the line."})
    line = fields.Integer(metadata={"description": "The first physical line of it in the file, from 1."})
    first_byte = fields.Integer(metadata={"description": "In the decompressed file."})
    end_byte = fields.Integer(metadata={"description": "Exclusive."})
    raw = fields.String(allow_none=True, metadata={"description": "Its text; null when too many rows failed."})
    raw_is_base64 = fields.Boolean(metadata={"description": "The row is no text in the file's encoding."})
    field = fields.String(allow_none=True, metadata={"description": "The column at fault."})
    stage = fields.String(
        allow_none=True, metadata={"description": "Of an import: read, transform, enrich, validate, load or mirror."}
    )
    code = fields.String()
    message = fields.String()
    at = fields.AwareDateTime()
    corrected = fields.String(allow_none=True, metadata={"description": "The text that a replay loads in its place."})
    resolved_by = fields.UUID(allow_none=True, metadata={"description": "The replay that loaded it after all."})
    resolved_at = fields.AwareDateTime(allow_none=True)


class OneFailedRecordSchema(FailedRecordSchema, RecordSchema):
    """A refused row with its fields."""


class FailedGroupSchema(Schema):
    """Refused rows with one code and field, with the first of them as a sample."""

    stage = fields.String(allow_none=True)
    code = fields.String()
    field = fields.String(allow_none=True)
    count = fields.Integer()
    unresolved = fields.Integer(metadata={"description": "Those that no replay has loaded."})
    line = fields.Integer(metadata={"description": "Of the sample, as are message and raw."})
    message = fields.String()
    raw = fields.String(allow_none=True)


class FailedGroupsSchema(Schema):
    """All of them, the largest group first."""

    items = fields.List(fields.Nested(FailedGroupSchema))


class CorrectionSchema(Schema):
    """Another text for a refused row: `raw`, or `values` of some of its fields."""

    raw = fields.String(validate=validate.Length(1, 1_048_576))
    values = fields.Dict(
        keys=fields.String(),
        values=fields.Raw(allow_none=True),
        validate=validate.Length(1),
        metadata={"description": "By the names of the file's fields; of CSV text, of JSON any value."},
    )

    @validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError("expected either raw or values", "raw")


class CorrectionsSchema(Schema):
    """A CSV file in UTF-8: its text, or an upload."""

    text = fields.String(validate=validate.Length(1))
    upload = fields.String(
        validate=validate.Length(1, 1024), metadata={"description": "Id or key, as the upload answered."}
    )

    @validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError("expected either text or upload", "text")


class CorrectedSchema(Schema):
    """What became of the rows of the file."""

    corrected = fields.Integer()
    unchanged = fields.Integer(metadata={"description": "Rows that are as the ledger has them."})


class ReplaySchema(Schema):
    """Which refused rows to load again."""

    codes = fields.List(
        fields.String(validate=validate.Length(1, 100)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 100),
        metadata={"description": "Only rows refused with these; all when it is left out."},
    )
    corrections = fields.Nested(
        CorrectionsSchema, load_default=None, allow_none=True, metadata={"description": "Applied before."}
    )


class FailedRecordPageSchema(Schema):
    """A page of refused rows, in the order of the file."""

    items = fields.List(fields.Nested(FailedRecordSchema))
    next_cursor = fields.String(allow_none=True)


class FailedRecordQuerySchema(LinkedSchema):
    """Which refused rows, and how."""

    cursor = fields.Integer(
        load_default=-1, validate=validate.Range(-1, 2**63 - 1), metadata={"description": "next_cursor, a line number."}
    )
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1_000))
    format = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "csv streams all of them as a download; without it the header Accept decides."},
    )


@blueprint.route("/jobs/<uuid:job_id>/failed-records")
@blueprint.arguments(FailedRecordQuerySchema, location="query", unknown="raise")
@blueprint.response(200, FailedRecordPageSchema)
def listed(query: dict[str, Any], job_id: UUID) -> Any:
    """Read the rows that a job refused, each with its line, its bytes and the reason."""
    if (query["format"] or _accepted()) == "csv":
        return _download(job_id)
    limit = query["limit"]
    found = services().failed_records.page(tenant(), job_id, after=query["cursor"], limit=limit + 1)
    next_cursor = str(found[limit - 1].line) if len(found) > limit else None
    items = [_shown(job_id, record) for record in found[:limit]]
    return link_next(make_response(FailedRecordPageSchema().dump(page(items, next_cursor))), next_cursor)


def _accepted() -> str:
    asked = request.accept_mimetypes
    return "csv" if asked["text/csv"] > asked["application/json"] else "json"


@blueprint.route("/jobs/<uuid:job_id>/failed-records/groups")
@blueprint.response(200, FailedGroupsSchema)
def groups(job_id: UUID) -> Any:
    """Count the rows that a job refused by code and field, with a sample of each."""
    return {"items": services().failed_records.groups(tenant(), job_id)}


@blueprint.route("/jobs/<uuid:job_id>/failed-records/<int(max=9223372036854775807):line>")
@blueprint.response(200, OneFailedRecordSchema)
def one(job_id: UUID, line: int) -> Any:
    """Read one row that a job refused, by its line, with its fields."""
    record, values = services().failed_records.get(tenant(), job_id, line)
    messages = [{"field": record.field, "code": record.code, "message": record.message}]
    return {
        **_shown(job_id, record),
        "values": values,
        "valid": record.resolved_at is not None,
        "messages": messages,
    }


@blueprint.route("/jobs/<uuid:job_id>/failed-records/<int(max=9223372036854775807):line>", methods=["PATCH"])
@blueprint.arguments(CorrectionSchema)
@blueprint.response(200, FailedRecordSchema)
def correct(body: dict[str, Any], job_id: UUID, line: int) -> Any:
    """Correct a refused row; the next `:replay` of the job loads it so."""
    return _shown(job_id, services().replays.correct(tenant(), job_id, line, **body))


@blueprint.route("/jobs/<uuid:job_id>/failed-records:correct", methods=["POST"])
@blueprint.arguments(CorrectionsSchema)
@blueprint.response(200, CorrectedSchema)
def correct_by_file(body: dict[str, Any], job_id: UUID) -> Any:
    """Correct refused rows by a CSV file: `id` or `line`, and columns of the file; all of it, or nothing.

    The download of the ledger is such a file: change its own columns and send it back.
    """
    return services().corrections.apply(tenant(), job_id, **body)


@blueprint.route("/jobs/<uuid:job_id>:replay", methods=["POST"])
@blueprint.arguments(ReplaySchema)
@blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
@blueprint.doc(parameters=[KEY])
def replay(body: dict[str, Any], job_id: UUID) -> Any:
    """Submit a job that loads the refused rows once more, as they are or as they were corrected."""
    if body["corrections"]:
        services().corrections.apply(tenant(), job_id, at="/corrections", **body["corrections"])
    submitted = services().replays.replay(
        tenant(), job_id, codes=body["codes"], actor=actor(), idempotency_key=request.headers.get("Idempotency-Key")
    )
    return accepted(submitted.job, replayed=submitted.replayed)


def _download(job_id: UUID) -> Response:
    response = Response(services().failed_records.as_csv(tenant(), job_id), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="failed-records-{job_id}.csv"'
    return response


def _shown(job_id: UUID, record: FailedRecord) -> dict[str, Any]:
    return {"id": record_id(job_id, record.line), "stage": record.stage, **asdict(record)}
