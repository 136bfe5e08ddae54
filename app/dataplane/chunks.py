"""Chunks: records in columns, with their lines and byte ranges, as every reader gives them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Final

from app.dataplane.faults import Fault

NULL: Final = b"\xff"
"""NULL in a column whose empty text is a value of its own; no UTF-8 text is so."""


class Encoding(StrEnum):
    """How a file's characters are written; the value is Python's name of the codec."""

    UTF_8 = "utf-8"
    LATIN_1 = "latin-1"
    UTF_16_LE = "utf-16-le"
    UTF_16_BE = "utf-16-be"

    @property
    def is_wide(self) -> bool:
        """Whether a character takes two bytes or more."""
        return self in (Encoding.UTF_16_LE, Encoding.UTF_16_BE)


def detect(head: bytes, asked: str) -> tuple[Encoding, int]:
    """The encoding of a file that begins with ``head``, and the length of its byte order mark.

    Args:
        asked: ``utf-8``, ``latin-1`` or ``utf-16``. A mark of UTF-16 wins over ``utf-8``; without one ``utf-16`` is
            little-endian.
    """
    if asked == "latin-1":
        return Encoding.LATIN_1, 0
    if head.startswith(codecs.BOM_UTF8):
        return Encoding.UTF_8, len(codecs.BOM_UTF8)
    if head.startswith(codecs.BOM_UTF16_LE):
        return Encoding.UTF_16_LE, len(codecs.BOM_UTF16_LE)
    if head.startswith(codecs.BOM_UTF16_BE):
        return Encoding.UTF_16_BE, len(codecs.BOM_UTF16_BE)
    return (Encoding.UTF_16_LE if asked == "utf-16" else Encoding.UTF_8), 0


@dataclass(slots=True)
class Chunk:
    """Consecutive records of a file.

    Args:
        data: Their bytes as they stand in the file.
        first_byte: Where ``data`` begins in the file; ``first_line`` its first physical line, counted from 1.
        count: Records in it: the good, the refused and the blank.
        columns: The values of the good records, one list a field, in UTF-8.
        members: For each good record its place among all of them, 0 to ``count`` - 1, ascending.
        faults: The refused records by place.
        blanks: The places of empty lines.
        lines: How many physical lines it has.
        starts: The line of each record, counted from 0 in the chunk; ``None`` when each has one line.
        bounds: Where each line begins in ``data``, then its length; found when first asked for.
        plain: No value holds a tab, a line end or a backslash.
    """

    data: bytes
    first_byte: int
    first_line: int
    count: int
    columns: list[list[bytes]]
    members: Sequence[int]
    faults: dict[int, Fault]
    blanks: list[int]
    lines: int
    starts: list[int] | None = None
    bounds: list[int] | None = field(default=None, repr=False)
    length: int = 0
    plain: bool = False

    def line_of(self, place: int) -> int:
        """The first physical line of a record; of ``count``: the line after the chunk."""
        if place == self.count:
            return self.first_line + self.lines
        return self.first_line + (place if self.starts is None else self.starts[place])

    def byte_of(self, place: int) -> int:
        """Where a record begins in the file; of ``count``: where the chunk ends."""
        if place == 0:
            return self.first_byte
        if place == self.count:
            return self.first_byte + self.length
        if self.bounds is None:
            self.bounds = [0, *accumulate(map(len, self.data.splitlines(keepends=True)))]
        return self.first_byte + self.bounds[self.line_of(place) - self.first_line]

    def raw(self, place: int) -> bytes:
        """A record's bytes, its line end included; empty when it was too long to keep."""
        return self.data[self.byte_of(place) - self.first_byte : self.byte_of(place + 1) - self.first_byte]
