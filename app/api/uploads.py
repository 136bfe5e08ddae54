"""``/v1/uploads``: a file goes straight to S3, by one presigned PUT or in parts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import url_for
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.domain.artifacts import Upload
from app.domain.places import relative_key
from app.domain.ports import ObjectInfo
from app.services.uploads import Ticket
from app.web.current import actor, services, tenant

blueprint = Blueprint("uploads", __name__, url_prefix="/v1", description="Files that clients bring.")


class NewUploadSchema(Schema):
    """A file that is to come."""

    filename = fields.String(required=True, validate=validate.Length(1, 1_000), metadata={"example": "contacts.csv"})
    size_bytes = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(0, 5 * 10**12),
        metadata={"description": "When known, and then no other is taken; over 100 MB the upload is in parts."},
    )
    parts = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 1_000),
        metadata={"description": "How many parts you want; overrides the choice by size."},
    )
    content_type = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Regexp(r"^[\w.+-]{1,100}/[\w.+-]{1,100}$", error="a content type is type/subtype"),
        metadata={"description": "When known; one PUT must then send this header."},
    )


class PartUrlSchema(Schema):
    """Where one part goes, by a PUT."""

    number = fields.Integer()
    url = fields.String()


class TicketSchema(Schema):
    """How to send the file."""

    id = fields.UUID()
    filename = fields.String()
    s3_key = fields.String(metadata={"description": "For a job's config."})
    url = fields.String(
        allow_none=True, metadata={"description": "Where one PUT of the file goes; null when in parts."}
    )
    parts = fields.List(fields.Nested(PartUrlSchema))
    part_bytes = fields.Integer(
        allow_none=True,
        metadata={"description": "Size of every part but the last; null: yours to choose, 5 MiB or more."},
    )
    headers = fields.Dict(
        keys=fields.String(), values=fields.String(), metadata={"description": "What one PUT must send, as announced."}
    )
    expires_at = fields.AwareDateTime()


class SentPartSchema(Schema):
    """A part that was sent."""

    number = fields.Integer(required=True, strict=True, validate=validate.Range(1, 10_000))
    etag = fields.String(required=True, validate=validate.Length(1, 200), metadata={"description": "As S3 answered."})


class SentPartsSchema(Schema):
    """Every part of the upload."""

    parts = fields.List(fields.Nested(SentPartSchema), required=True, validate=validate.Length(1, 10_000))


class UploadSchema(Schema):
    """An upload and what S3 holds of it."""

    id = fields.UUID()
    filename = fields.String()
    s3_key = fields.String()
    in_parts = fields.Boolean()
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    completed_at = fields.AwareDateTime(allow_none=True, metadata={"description": "When its parts were joined."})
    arrived = fields.Boolean(metadata={"description": "Whether the whole file, as announced, is in S3."})
    size_bytes = fields.Integer(allow_none=True)
    etag = fields.String(allow_none=True)
    refused = fields.String(
        allow_none=True, metadata={"description": "How what is in S3 differs from what was announced; no job takes it."}
    )


@blueprint.route("/uploads", methods=["POST"])
@blueprint.arguments(NewUploadSchema)
@blueprint.response(201, TicketSchema, headers={"Location": {"schema": {"type": "string"}}})
def create(body: dict[str, Any]) -> Any:
    """Prepare an upload: where to PUT the file, or each of its parts."""
    ticket = services().uploads.create(tenant(), created_by=actor(), **body)
    return _ticket(ticket), 201, {"Location": url_for("uploads.get", upload_id=ticket.upload.id)}


@blueprint.route("/uploads/<uuid:upload_id>")
@blueprint.response(200, UploadSchema)
def get(upload_id: UUID) -> Any:
    """Read an upload, and whether its file has arrived."""
    return _upload(*services().uploads.get(tenant(), upload_id))


@blueprint.route("/uploads/<uuid:upload_id>:complete", methods=["POST"])
@blueprint.arguments(SentPartsSchema)
@blueprint.response(200, UploadSchema)
def complete(body: dict[str, Any], upload_id: UUID) -> Any:
    """Join the parts of an upload; doing it again answers the same."""
    parts = [{"PartNumber": part["number"], "ETag": part["etag"]} for part in body["parts"]]
    return _upload(*services().uploads.complete(tenant(), upload_id, parts))


def _ticket(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.upload.id,
        "filename": ticket.upload.filename,
        "s3_key": ticket.s3_key,
        "url": ticket.url,
        "parts": [{"number": number, "url": url} for number, url in enumerate(ticket.part_urls, start=1)],
        "part_bytes": ticket.part_bytes,
        "headers": _headers(ticket),
        "expires_at": ticket.expires_at,
    }


def _headers(ticket: Ticket) -> dict[str, str]:
    announced = {"Content-Type": ticket.upload.content_type, "Content-Length": ticket.upload.size_bytes}
    return {} if ticket.url is None else {name: str(said) for name, said in announced.items() if said is not None}


def _upload(upload: Upload, info: ObjectInfo | None) -> dict[str, Any]:
    refused = upload.mismatch(info) if info else None
    return {
        "id": upload.id,
        "filename": upload.filename,
        "s3_key": relative_key(upload.tenant, upload.ref),
        "in_parts": upload.upload_id is not None,
        "created_by": upload.created_by,
        "created_at": upload.created_at,
        "completed_at": upload.completed_at,
        "arrived": info is not None and refused is None,
        "size_bytes": info.size_bytes if info else None,
        "etag": info.etag if info else None,
        "refused": refused,
    }
