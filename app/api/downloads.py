"""``/v1/artifacts/{id}/content``: the bytes of a file that a job made, or a range of them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote
from uuid import UUID

from flask import Response, request
from flask_smorest import Blueprint
from werkzeug.http import is_resource_modified

from app.domain.artifacts import Artifact
from app.domain.errors import RangeError
from app.web.current import by_link, services, tenant

blueprint = Blueprint("downloads", __name__, url_prefix="/v1", description="The bytes of files that jobs made.")

_BYTES: Final = {"type": "string", "format": "binary"}


@blueprint.route("/artifacts/<uuid:artifact_id>/content")
@blueprint.response(200, _BYTES, content_type="application/octet-stream")
@blueprint.alt_response(206, schema=_BYTES, content_type="application/octet-stream", description="A range of it.")
@blueprint.alt_response(410, description="Its time is over.", success=False)
def content(artifact_id: UUID) -> Response:
    """Download a file, with a key or by its link; `Range` and `If-Range` go on where a download broke off."""
    artifact = services().downloads.get(tenant(), artifact_id)
    etag = f'"{artifact.sha256 or artifact.created_at}"'
    if not is_resource_modified(request.environ, etag=etag):
        return _headed(Response(status=304), artifact, etag)
    start, end = _range(artifact, etag)
    is_part = (start, end) != (0, artifact.size_bytes)
    response = _headed(Response(status=206 if is_part else 200), artifact, etag)
    response.headers["Content-Length"] = str(end - start)
    if is_part:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size_bytes}"
    if request.method != "HEAD":
        _fill(response, artifact, start, end)
    return response


def _fill(response: Response, artifact: Artifact, start: int, end: int) -> None:
    places = services().download_places
    places.take()
    response.call_on_close(places.leave)
    try:
        response.response = services().downloads.read(artifact, start, end)
    except BaseException:
        response.close()
        raise


def _range(artifact: Artifact, etag: str) -> tuple[int, int]:
    """Which bytes are asked for; all of them when the file is no longer the one that the range is of."""
    size_bytes = artifact.size_bytes
    asked, known = request.range, request.if_range
    if asked is None or ((known.etag or known.date) and known.etag != etag.strip('"')):
        return 0, size_bytes
    found = asked.range_for_length(size_bytes)
    if found is None:
        raise RangeError(
            f"expected one range of bytes below {size_bytes}, got {request.headers['Range']!r}",
            data={"size_bytes": size_bytes},
        )
    return found


def _caching(artifact: Artifact) -> str:
    # A CDN keeps a file under its link, signature and all: whoever may see the link may see the file. What came by a
    # key is kept by nobody: its address alone would open it.
    if services().settings.cdn_base_url is None or not by_link():
        return "private, no-cache"
    return f"public, max-age={services().links.cached_s(request.args, artifact.expires_at)}"


def _headed(response: Response, artifact: Artifact, etag: str) -> Response:
    response.headers.update(
        {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Content-Type": artifact.content_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": _caching(artifact),
        }
    )
    return response
