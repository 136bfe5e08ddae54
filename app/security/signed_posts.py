"""Signatures of posts, as Standard Webhooks 1.0 has them: a receiver checks who sent a body, and when."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Final

from app.domain.errors import InvalidRequestError, Problem

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)


def new_secret() -> str:
    """A secret that nobody has."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key that a secret stands for.

    Raises:
        InvalidRequestError: ``sink.secret_invalid``; it is not repeated.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        detail = "expected whsec_ and 24 to 64 bytes as base64"
        raise InvalidRequestError(
            f"the secret is none: {detail}", code="sink.secret_invalid", problems=(Problem("/secret", detail),)
        )
    return key


def headers_of(body: bytes, *, message_id: str, at: datetime, secret: str) -> dict[str, str]:
    """The headers that sign ``body``; a message that is sent again keeps its id."""
    timestamp = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
