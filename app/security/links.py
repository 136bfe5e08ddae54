"""Links that need no key: a path and an end, signed. A CDN that holds the secret can check them at its edge."""

from __future__ import annotations

import hmac
from typing import Final

_PURPOSE: Final = b"haulier link 1"


def signature(secret: str, path: str, expires: int) -> str:
    """Hex of HMAC-SHA256 over the path, a line end and ``expires`` (seconds since 1970).

    Its key is HMAC-SHA256 of ``haulier link 1`` under the installation's secret.
    """
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    return hmac.digest(key, f"{path}\n{expires}".encode(), "sha256").hex()


def is_signed(secret: str, path: str, expires: int, given: str) -> bool:
    """Whether ``given`` is the signature; in the same time whatever it is."""
    return hmac.compare_digest(signature(secret, path, expires).encode(), given.encode())
