"""A zip file with one member, written as it comes."""

from __future__ import annotations

from app.dataplane.zip_stream import ZipStream


class ZipOfOne:
    """Packs one member (``compressors.Compressor``)."""

    def __init__(self, name: str) -> None:
        self._zip = ZipStream()
        self._begun = self._zip.begin(name)

    def compress(self, data: bytes, /) -> bytes:
        """What has become ready of it."""
        begun, self._begun = self._begun, b""
        return begun + self._zip.compress(data)

    def flush(self) -> bytes:
        """The rest of the data, its lengths, and the directory."""
        return self.compress(b"") + self._zip.end() + self._zip.finish()
