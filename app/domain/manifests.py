"""An export's manifest: what its files are, signed, so that they can be checked without the server."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

ALGORITHM: Final = "HMAC-SHA256"
SEALED_SUFFIX: Final = ".sealed"
"""Of the names of encrypted files, behind that of what is in them."""
ENCRYPTION: Final = "AES-256-GCM"
_PURPOSE: Final = b"haulier export manifest 1"


class Signed(StrEnum):
    """What a manifest's signature is worth."""

    VALID = "valid"
    WRONG = "wrong"
    MISSING = "missing"
    UNCHECKED = "unchecked"
    """There is one, and no secret, or another one, to check it with."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an export, as its manifest describes it.

    Args:
        sealed: The same file as it is stored when it is encrypted; the other facts are those of what is in it.
    """

    name: str
    rows: int
    size_bytes: int
    sha256: str
    sealed: Part | None = None


def signed(manifest: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """``manifest`` with its signature, ``None`` when the installation has no secret."""
    body = {name: value for name, value in manifest.items() if name != "signature"}
    if secret is None:
        return {**body, "signature": None}
    key = _key(secret)
    return {**body, "signature": {"algorithm": ALGORITHM, "key_id": _key_id(key), "value": _mac(body, key)}}


def signature_of(manifest: Mapping[str, Any], secret: str | None) -> Signed:
    """What the signature of ``manifest`` is worth to who holds ``secret``."""
    signature = manifest.get("signature")
    if not isinstance(signature, dict):
        return Signed.MISSING
    if secret is None or signature.get("key_id") != _key_id(key := _key(secret)):
        return Signed.UNCHECKED
    body = {name: value for name, value in manifest.items() if name != "signature"}
    same = hmac.compare_digest(str(signature.get("value")).encode(), _mac(body, key).encode())
    return Signed.VALID if same else Signed.WRONG


def parts_of(manifest: Mapping[str, Any]) -> list[Part]:
    """The files that ``manifest`` lists; one of ``export_csv_file`` is a single file.

    Raises:
        ValueError: It is no manifest of ours; the text says what is missing.
    """
    listed = manifest.get("parts")
    try:
        if not isinstance(listed, list):
            listed = [{name: manifest[name] for name in ("rows", "bytes", "sha256")} | {"key": manifest["s3_key"]}]
        parts = [_part(one) for one in listed]
        total = int(manifest["rows"])
    except KeyError as error:
        raise ValueError(f"a manifest has the field {error.args[0]!r}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a field of the manifest is not what it should be: {error}") from None
    if total != sum(part.rows for part in parts):
        raise ValueError(f"the parts' rows add up to {sum(part.rows for part in parts)}, the manifest says {total}")
    return parts


def _part(one: Mapping[str, Any]) -> Part:
    name, rows, sealed = _name(one["key"]), int(one["rows"]), one.get("sealed")
    stored = None if sealed is None else Part(name, rows, int(sealed["bytes"]), str(sealed["sha256"]))
    opened = name if sealed is None else name.removesuffix(SEALED_SUFFIX)
    return Part(opened, rows, int(one["bytes"]), str(one["sha256"]), stored)


def _name(key: str) -> str:
    # Never a path: a forged manifest must not have us read other files.
    name = key.replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("", ".", ".."):
        raise ValueError(f"a part's key ends in a file's name, got {key!r}")
    return name


def _key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE, "sha256")


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]


def _mac(body: Mapping[str, Any], key: bytes) -> str:
    exact = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.digest(key, exact.encode(), "sha256").hex()
