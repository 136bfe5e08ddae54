"""Signatures of links. A CDN that holds the secret can check them at its edge."""

from __future__ import annotations

import hmac
from typing import Final

_PURPOSE: Final = b"haulier link 1"


def signature(secret: str, asked: str, expires: int) -> str:
    """Hex of HMAC-SHA256 over what is asked for, a line end and ``expires``.

    Its key is HMAC-SHA256 of ``haulier link 1`` under the installation's secret.

    Args:
        asked: Path and query, the arguments in the order of their names, without ``expires`` and ``signature``.
        expires: Seconds since 1970.
    """
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    return hmac.digest(key, f"{asked}\n{expires}".encode(), "sha256").hex()


def is_signed(secret: str, asked: str, expires: int, given: str) -> bool:
    """Whether ``given`` is the signature; in the same time whatever it is."""
    return hmac.compare_digest(signature(secret, asked, expires).encode(), given.encode())
