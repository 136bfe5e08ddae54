"""Blocks of CSV lines taken apart into fields by a few calls on the whole block."""

from __future__ import annotations

from itertools import compress, repeat
from typing import Final

from app.dataplane.chunks import Chunk
from app.dataplane.faults import Fault

# Bytes that stand for a delimiter, and for the end of a record, while a block is taken apart.
FIELD_END: Final = b"\x1f"
RECORD_END: Final = b"\x1e"


def ragged(expected: int, came: int) -> Fault:
    """The fault of a record with another number of fields than the header."""
    return Fault("csv.ragged", f"expected {expected} fields as in the header, got {came}")


def take_apart(lines: bytes, delimiter: bytes) -> bytes | None:
    """``lines`` with marks for delimiters and line ends outside quotes, and without the quotes themselves.

    ``None`` when a quote stands elsewhere than at the border of a field, or a line end inside quotes.
    """
    if b'"' not in lines:
        return lines.replace(delimiter, FIELD_END).replace(b"\n", RECORD_END)
    parts = lines.split(b'"')
    outside, inside = parts[0::2], parts[1::2]
    if len(outside) == len(inside):
        return None
    # Between two quoted parts lies either a border of fields or nothing: then two quotes stood for one.
    borders = {delimiter, b"\n", b""}
    if not {part[-1:] for part in outside[:-1]} <= borders or not {part[:1] for part in outside[1:]} <= borders:
        return None
    if b"\n" in b"".join(inside):
        return None
    marked = b'"'.join(outside).replace(delimiter, FIELD_END).replace(b"\n", RECORD_END).split(b'"')
    if b"" in marked:
        marked[1:-1] = [part or b'"' for part in marked[1:-1]]
    parts[0::2] = marked
    return b"".join(parts)


def fill(chunk: Chunk, taken_apart: bytes, width: int) -> bool:
    """Fill ``chunk`` if every record has ``width`` fields, more than one; whether that is so."""
    flat = taken_apart.replace(RECORD_END, FIELD_END + RECORD_END + FIELD_END).split(FIELD_END)
    # Each record is followed by one mark: when every mark stands in its place, every record has that many fields.
    if set(flat[width :: width + 1]) != {RECORD_END}:
        return False
    chunk.columns = [flat[place : -1 : width + 1] for place in range(width)]
    return True


def keep_of_width(chunk: Chunk, taken_apart: bytes, width: int) -> None:
    """Fill ``chunk`` with the records of ``width`` fields; the others are blank or ragged.

    Args:
        taken_apart: Every record, its fields apart and with a mark behind it.
    """
    records = taken_apart.split(RECORD_END)
    del records[-1]
    marks = list(map(bytes.count, records, repeat(FIELD_END)))
    # A blank line would pass for a record of one empty field.
    suspects = [place for place, found in enumerate(marks) if found != width - 1 or (width == 1 and not records[place])]
    is_good = bytearray(b"\1") * chunk.count
    for place in suspects:
        if not records[place] and chunk.raw(place).strip(b"\r\n\0") == b"":
            is_good[place] = False
            chunk.blanks.append(place)
        elif marks[place] != width - 1:
            is_good[place] = False
            chunk.faults[place] = ragged(width, marks[place] + 1)
    chunk.members = list(compress(range(chunk.count), is_good))
    kept = FIELD_END.join(compress(records, is_good)).split(FIELD_END) if chunk.members else []
    chunk.columns = [kept[place::width] for place in range(width)]
