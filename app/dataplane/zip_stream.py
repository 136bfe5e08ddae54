"""A zip file that is written as it comes, from its beginning to its end; of any length (zip64)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from isal import isal_zlib

_LEVEL: Final = 1
_RAW: Final = -15
_DEFLATED: Final = 8
_PLAIN, _ZIP64 = 20, 45
_UTF8, _LENGTHS_BEHIND = 0x0800, 0x0008
_MIDNIGHT_OF_1980: Final = (0, 0x21)
"""One fixed time: the same members make the same file."""
_ELSEWHERE: Final = 0xFFFFFFFF


@dataclass(slots=True)
class _Member:
    name: bytes
    offset: int
    version: int = _ZIP64
    flags: int = _UTF8 | _LENGTHS_BEHIND
    crc: int = 0
    plain_bytes: int = 0
    packed_bytes: int = 0


class ZipStream:
    """Packs members, one after another; what its methods return is the file."""

    def __init__(self) -> None:
        self._bytes = 0
        self._members: list[_Member] = []
        self._deflate: Any = None

    def begin(self, name: str) -> bytes:
        """Begin a member; the one before it was ended."""
        member = _Member(name.encode(), self._bytes)
        self._members.append(member)
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
        # Whether it needs zip64 is not known yet.
        extra = struct.pack("<HHQQ", 1, 16, 0, 0)
        return self._counted(_head(member, lengths=(_ELSEWHERE, _ELSEWHERE), extra=extra))

    def add(self, name: str, data: bytes) -> bytes:
        """A whole member."""
        packed = isal_zlib.compress(data, _LEVEL, _RAW)
        member = _Member(name.encode(), self._bytes, _PLAIN, _UTF8, isal_zlib.crc32(data), len(data), len(packed))
        self._members.append(member)
        return self._counted(_head(member, lengths=(len(packed), len(data)), extra=b"") + packed)

    def compress(self, data: bytes) -> bytes:
        """What has become ready of the member."""
        member = self._members[-1]
        member.crc = isal_zlib.crc32(data, member.crc)
        member.plain_bytes += len(data)
        return self._packed(self._deflate.compress(data))

    def end(self) -> bytes:
        """The rest of the member, and its lengths."""
        member = self._members[-1]
        rest = self._packed(self._deflate.flush())
        return rest + self._counted(
            struct.pack("<4sLQQ", b"PK\x07\x08", member.crc, member.packed_bytes, member.plain_bytes)
        )

    def finish(self) -> bytes:
        """The directory; nothing is written after it."""
        directory = b"".join(map(_entry, self._members))
        return directory + _end(len(self._members), self._bytes, len(directory))

    def _packed(self, packed: bytes) -> bytes:
        self._members[-1].packed_bytes += len(packed)
        return self._counted(packed)

    def _counted(self, data: bytes) -> bytes:
        self._bytes += len(data)
        return data


def _head(member: _Member, *, lengths: tuple[int, int], extra: bytes) -> bytes:
    fields = struct.pack(
        "<4sHHHHHLLLHH",
        b"PK\3\4",
        member.version,
        member.flags,
        _DEFLATED,
        *_MIDNIGHT_OF_1980,
        member.crc,
        *lengths,
        len(member.name),
        len(extra),
    )
    return fields + member.name + extra


def _entry(member: _Member) -> bytes:
    numbers = (member.packed_bytes, member.plain_bytes, member.offset)
    packed, plain, offset = (min(number, _ELSEWHERE) for number in numbers)
    large = [number for number in (member.plain_bytes, member.packed_bytes, member.offset) if number >= _ELSEWHERE]
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    fields = struct.pack(
        "<4sHHHHHHLLLHHHHHLL",
        b"PK\1\2",
        _ZIP64,
        max(member.version, _ZIP64 if large else _PLAIN),
        member.flags,
        _DEFLATED,
        *_MIDNIGHT_OF_1980,
        member.crc,
        packed,
        plain,
        len(member.name),
        len(extra),
        0,
        0,
        0,
        0,
        offset,
    )
    return fields + member.name + extra


def _end(members: int, offset: int, size: int) -> bytes:
    large = b""
    if offset >= _ELSEWHERE:
        large = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, _ZIP64, _ZIP64, 0, 0, members, members, size, offset)
        large += struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    return large + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, members, members, size, min(offset, _ELSEWHERE), 0)
