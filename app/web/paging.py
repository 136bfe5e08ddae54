"""Opaque cursors and Link headers."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Response, request

from app.domain.errors import MalformedRequestError


def encode_cursor(job_id: UUID) -> str:
    """The place after ``job_id``."""
    return base64.urlsafe_b64encode(job_id.bytes).rstrip(b"=").decode()


def decode_cursor(cursor: str | None) -> UUID | None:
    """The id in a cursor.

    Raises:
        MalformedRequestError: It is none of ours.
    """
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        raise MalformedRequestError(
            f"the cursor {cursor!r} is not one this server gave", code="request.bad_cursor"
        ) from None


def page(items: list[Any], next_cursor: str | None) -> dict[str, Any]:
    """A page's body."""
    return {"items": items, "next_cursor": next_cursor}


def link_next(response: Response, next_cursor: str | None, *, argument: str = "cursor") -> Response:
    """Add the Link header that leads to the next page, named by ``argument``."""
    if next_cursor is not None:
        query = urlencode(
            [*((k, v) for k, v in request.args.items(multi=True) if k != argument), (argument, next_cursor)]
        )
        response.headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return response
