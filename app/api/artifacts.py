"""``/v1/jobs/{id}/artifacts`` and ``/v1/artifacts``: files that jobs made, with links that download them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urljoin
from uuid import UUID

from flask import request
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.services.artifacts import Download
from app.services.job_files import MadeFile
from app.web.current import services, tenant

blueprint = Blueprint("artifacts", __name__, url_prefix="/v1", description="Files that jobs made.")


class ArtifactSchema(Schema):
    """A file, and a link that downloads it without a key."""

    id = fields.UUID()
    job_id = fields.UUID()
    kind = fields.String(metadata={"description": "export, manifest or file; log, report or failed_rows."})
    name = fields.String()
    content_type = fields.String()
    s3_key = fields.String(
        allow_none=True, metadata={"description": "Null, like the size, of what is made on request."}
    )
    size_bytes = fields.Integer(allow_none=True)
    sha256 = fields.String(allow_none=True, metadata={"description": "Hex, of the bytes as downloaded."})
    rows = fields.Integer(allow_none=True)
    created_at = fields.AwareDateTime()
    expires_at = fields.AwareDateTime(allow_none=True, metadata={"description": "When the file is removed."})
    state = fields.String(
        validate=validate.OneOf(["available", "expired"]),
        metadata={"description": "expired: its time is over, and so are its links."},
    )
    encrypted = fields.Boolean(
        metadata={"description": "Whether it is stored encrypted; size and SHA-256 are those of the download."}
    )
    url = fields.String(allow_none=True, metadata={"description": "Fresh with every answer; null when expired."})
    url_expires_at = fields.AwareDateTime(allow_none=True)


class ArtifactsSchema(Schema):
    """A job's files."""

    items = fields.List(fields.Nested(ArtifactSchema))


@blueprint.route("/jobs/<uuid:job_id>/artifacts")
@blueprint.response(200, ArtifactsSchema)
def of_job(job_id: UUID) -> Any:
    """List the files that a job made, then those that are made when they are asked for: log, report, failed rows."""
    stored = [_body(download) for download in services().artifacts.of_job(tenant(), job_id)]
    return {"items": stored + [_made(file) for file in services().job_files.of_job(tenant(), job_id)]}


@blueprint.route("/artifacts/<uuid:artifact_id>")
@blueprint.response(200, ArtifactSchema)
def get(artifact_id: UUID) -> Any:
    """Read one file's record, with a fresh link."""
    return _body(services().artifacts.get(tenant(), artifact_id))


_SAME: Final = ("id", "job_id", "kind", "name", "content_type", "rows", "created_at")


def _made(file: MadeFile) -> dict[str, Any]:
    return {
        **{name: getattr(file, name) for name in _SAME},
        **dict.fromkeys(("s3_key", "size_bytes", "sha256", "expires_at")),
        "state": "available",
        "encrypted": False,
        "url": absolute(None if file.link is None else file.link.url),
        "url_expires_at": file.link and file.link.expires_at,
    }


def absolute(url: str | None) -> str | None:
    """A link as it is given out: one of ours leads to the host that was asked."""
    return urljoin(request.host_url, url) if url else None


def _body(download: Download) -> dict[str, Any]:
    artifact = download.artifact
    return {
        "id": artifact.id,
        "job_id": artifact.job_id,
        "kind": artifact.kind,
        "name": artifact.name,
        "content_type": artifact.content_type,
        "s3_key": download.s3_key,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "rows": artifact.rows,
        "created_at": artifact.created_at,
        "expires_at": artifact.expires_at,
        "state": "available" if download.link else "expired",
        "encrypted": artifact.sealed_bytes is not None,
        "url": absolute(download.url),
        "url_expires_at": download.link and download.link.expires_at,
    }
