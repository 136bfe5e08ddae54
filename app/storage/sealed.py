"""Uploads that are encrypted on their way (``domain.ports.ObjectUpload``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from app.domain.ports import ObjectInfo, ObjectUpload
from app.security.sealed_files import Sealer


class SealedUpload:
    """Encrypts what is written and hands it to another upload.

    Args:
        upload: Where the encrypted bytes go; nothing was written to it.
    """

    def __init__(self, upload: ObjectUpload, sealer: Sealer) -> None:
        self.upload_id = upload.upload_id
        self.key_id = sealer.key_id
        self.size_bytes = 0
        self._upload = upload
        self._sealer = sealer
        self._digest = hashlib.sha256()
        self._pass_on(sealer.header)

    @property
    def sha256(self) -> str:
        """Of the encrypted bytes, hex; whole after ``finish_parts``."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append; errors as of the upload below."""
        self._pass_on(self._sealer.seal(data))

    def finish_parts(self) -> list[dict[str, object]]:
        """Write the last frame and wait for every part."""
        self._pass_on(self._sealer.finish())
        return self._upload.finish_parts()

    def complete(self, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Make the object visible."""
        return self._upload.complete(parts)

    def abort(self) -> None:
        """Drop the upload; never raises."""
        self._upload.abort()

    def _pass_on(self, sealed: bytes) -> None:
        self._digest.update(sealed)
        self.size_bytes += len(sealed)
        self._upload.write(sealed)
