"""``/v1/jobs/{id}/failed-records``: the ledger, by pages or as one CSV download."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from flask import Response, make_response
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.domain.failed_records import FailedRecord
from app.web.current import services, tenant
from app.web.paging import link_next, page

blueprint = Blueprint("failed_records", __name__, url_prefix="/v1", description="Rows that jobs refused, and why.")

_CSV_COLUMNS: Final = ("line", "first_byte", "end_byte", "field", "code", "message", "raw", "raw_is_base64")
_ROWS_A_CHUNK: Final = 500


class FailedRecordSchema(Schema):
    """A refused row."""

    line = fields.Integer(metadata={"description": "The first physical line of it in the file, from 1."})
    first_byte = fields.Integer(metadata={"description": "In the decompressed file."})
    end_byte = fields.Integer(metadata={"description": "Exclusive."})
    raw = fields.String(allow_none=True, metadata={"description": "Its text; null when too many rows failed."})
    raw_is_base64 = fields.Boolean(metadata={"description": "The row is no text in the file's encoding."})
    field = fields.String(allow_none=True, metadata={"description": "The column at fault."})
    code = fields.String()
    message = fields.String()
    at = fields.AwareDateTime()


class FailedRecordPageSchema(Schema):
    """A page of refused rows, in the order of the file."""

    items = fields.List(fields.Nested(FailedRecordSchema))
    next_cursor = fields.String(allow_none=True)


class FailedRecordQuerySchema(Schema):
    """Which refused rows, and how."""

    cursor = fields.Integer(
        load_default=-1, validate=validate.Range(-1, 2**63 - 1), metadata={"description": "next_cursor, a line number."}
    )
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1_000))
    format = fields.String(
        load_default="json",
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "csv streams all of them as a download."},
    )


@blueprint.route("/jobs/<uuid:job_id>/failed-records")
@blueprint.arguments(FailedRecordQuerySchema, location="query", unknown="raise")
@blueprint.response(200, FailedRecordPageSchema)
def listed(query: dict[str, Any], job_id: UUID) -> Any:
    """Read the rows that a job refused, each with its line, its bytes and the reason."""
    if query["format"] == "csv":
        return _download(job_id)
    limit = query["limit"]
    found = services().failed_records.page(tenant(), job_id, after=query["cursor"], limit=limit + 1)
    next_cursor = str(found[limit - 1].line) if len(found) > limit else None
    return link_next(make_response(FailedRecordPageSchema().dump(page(found[:limit], next_cursor))), next_cursor)


def _download(job_id: UUID) -> Response:
    found = services().failed_records.all(tenant(), job_id)
    response = Response(_as_csv(found), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="failed-records-{job_id}.csv"'
    return response


def _as_csv(records: Iterator[FailedRecord]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_CSV_COLUMNS)
    for number, record in enumerate(records, start=1):
        writer.writerow([getattr(record, column) for column in _CSV_COLUMNS])
        if number % _ROWS_A_CHUNK == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()
