"""A zip file with one member, written as it comes, of any length (zip64)."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from isal import isal_zlib

_LEVEL: Final = 1
_RAW: Final = -15
_VERSION, _FLAGS, _DEFLATED = 45, 0x0808, 8
"""Names are UTF-8; lengths stand behind the data."""
_MIDNIGHT_OF_1980: Final = (0, 0x21)
_ELSEWHERE: Final = 0xFFFFFFFF


class ZipOfOne:
    """Packs one member (``compressors.Compressor``)."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
        self._crc = 0
        self._plain_bytes = 0
        self._packed_bytes = 0
        self._begun = False

    def compress(self, data: bytes, /) -> bytes:
        """What has become ready of it."""
        self._crc = zlib.crc32(data, self._crc)
        self._plain_bytes += len(data)
        return self._head() + self._counted(self._deflate.compress(data))

    def flush(self) -> bytes:
        """The rest of the data, its lengths, and the directory."""
        packed = self._head() + self._counted(self._deflate.flush())
        behind = struct.pack("<4sLQQ", b"PK\7\x08", self._crc, self._packed_bytes, self._plain_bytes)
        offset = 50 + len(self._name) + self._packed_bytes + len(behind)
        entry = self._entry()
        return packed + behind + entry + _end(offset, len(entry))

    def _head(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        fields = struct.pack(
            "<4sHHHHHLLLHH",
            b"PK\3\4",
            _VERSION,
            _FLAGS,
            _DEFLATED,
            *_MIDNIGHT_OF_1980,
            0,
            _ELSEWHERE,
            _ELSEWHERE,
            len(self._name),
            20,
        )
        return fields + self._name + struct.pack("<HHQQ", 1, 16, 0, 0)

    def _counted(self, packed: bytes) -> bytes:
        self._packed_bytes += len(packed)
        return packed

    def _entry(self) -> bytes:
        fields = struct.pack(
            "<4sHHHHHHLLLHHHHHLL",
            b"PK\1\2",
            _VERSION,
            _VERSION,
            _FLAGS,
            _DEFLATED,
            *_MIDNIGHT_OF_1980,
            self._crc,
            _ELSEWHERE,
            _ELSEWHERE,
            len(self._name),
            20,
            0,
            0,
            0,
            0,
            0,
        )
        return fields + self._name + struct.pack("<HHQQ", 1, 16, self._plain_bytes, self._packed_bytes)


def _end(offset: int, size: int) -> bytes:
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    return record + locator + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, size, _ELSEWHERE, 0)
