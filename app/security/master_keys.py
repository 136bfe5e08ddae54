"""The installation's master keys, which seal the keys of files and the credentials of sinks."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.errors import JobError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
ID_BYTES: Final = 8
_PURPOSE: Final = b"haulier master key 1"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One of them; its id may be shown and tells nothing of it."""

    id: bytes
    key: bytes

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """``secret``, readable only with this key and under the same ``context``."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, secret, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed; InvalidTag when it, or its context, is not what it was."""
        return AESGCM(self.key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)


class MasterKeys:
    """The first seals, every one opens: a key is changed by putting a new one in front.

    Args:
        secrets: As the settings hold them.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [_of(secret) for secret in secrets]

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def current(self) -> MasterKey:
        """The one that seals.

        Raises:
            JobError: ``master_key.missing``.
        """
        if not self._keys:
            raise JobError("this installation has no HAULIER_MASTER_KEY to encrypt with", code="master_key.missing")
        return self._keys[0]

    def find(self, key_id: bytes) -> MasterKey:
        """The one of this id.

        Raises:
            JobError: ``master_key.unknown``.
        """
        for key in self._keys:
            if key.id == key_id:
                return key
        raise JobError(
            f"what was sealed with master key {key_id.hex()} cannot be opened: this installation does not have it",
            code="master_key.unknown",
        )

    def seal(self, secret: bytes, *, context: str) -> bytes:
        """A secret as it may be stored: the key's id, and what only that key opens under the same ``context``."""
        key = self.current
        return key.id + key.seal(secret, context.encode())

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """The inverse of ``seal``.

        Raises:
            JobError: ``master_key.unknown``; ``master_key.tampered`` when it was changed or is another's.
        """
        key = self.find(sealed[:ID_BYTES])
        try:
            return key.open(sealed[ID_BYTES:], context.encode())
        except InvalidTag:
            raise JobError(
                "a stored secret was changed, or stands in another's place", code="master_key.tampered"
            ) from None


def _of(secret: str) -> MasterKey:
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    return MasterKey(hashlib.sha256(key).digest()[:ID_BYTES], key)
