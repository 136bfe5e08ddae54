"""API keys as text: how one is drawn, taken apart and compared."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from typing import Final

_ALPHABET: Final = string.ascii_letters + string.digits
_PREFIX: Final = "hk"


def draw() -> tuple[str, str, bytes]:
    """A new key: its id, the whole text that its owner keeps, and the hash that we keep."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(43))
    return key_id, f"{_PREFIX}_{key_id}_{secret}", digest(secret)


def split(key: str) -> tuple[str, str] | None:
    """The id and the secret in ``key``, or ``None`` when it does not look like a key."""
    parts = key.split("_")
    if len(parts) != 3 or parts[0] != _PREFIX or not parts[1] or not parts[2]:
        return None
    return parts[1], parts[2]


def digest(secret: str) -> bytes:
    """What is stored: the secret has 256 bits of its own, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, stored: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(digest(secret), stored)
