"""Lines encrypted one by one, as document 000's product has them: ``{"encrypted_data":"key_id:iv:ciphertext+tag"}``."""

from __future__ import annotations

import io
import os
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.dataplane.export import ExportStream
from app.domain.errors import InvalidRequestError, Problem

_IV_BYTES: Final = 12
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")


def check_name(name: str) -> None:
    """Whether a key can be called so: its name stands in every line, before a colon.

    Raises:
        InvalidRequestError: ``line_key.name_invalid``.
    """
    if not _NAME.fullmatch(name):
        detail = f"expected 1 to 63 letters, digits, '-' and '_', got {name!r}"
        raise InvalidRequestError(
            f"a line key cannot be called so: {detail}",
            code="line_key.name_invalid",
            problems=(Problem("/name", detail),),
        )


@dataclass(frozen=True, slots=True)
class LineKey:
    """What lines are encrypted with, and for whom.

    Args:
        id: Stands in every line; without a colon.
        customer_id: Is authenticated with every line, as is the line's place in the file, from 0.
    """

    id: str
    key: bytes = field(repr=False)
    customer_id: str


class EncryptedLines(io.RawIOBase):
    """Encrypts each line that is written and hands it on; AES-256-GCM, an IV of its own for each."""

    def __init__(self, stream: ExportStream, key: LineKey) -> None:
        super().__init__()
        self._stream = stream
        self._cipher = AESGCM(key.key)
        self._before = f'{{"encrypted_data":"{key.id}:'.encode()
        self._context = f"stream:{key.customer_id}:"
        self._row = 0
        self._rest = b""

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Take whole and broken lines; a broken one waits for its end."""
        data = bytes(block)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._stream.write(b"".join(map(self._sealed, lines)))
        return len(data)

    def _sealed(self, line: bytes) -> bytes:
        iv = os.urandom(_IV_BYTES)
        sealed = self._cipher.encrypt(iv, line, f"{self._context}{self._row}".encode())
        self._row += 1
        return self._before + b64encode(iv) + b":" + b64encode(sealed) + b'"}\n'
