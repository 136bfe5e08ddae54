"""What a file is, told by its content: its format, encoding and delimiter, each with how sure that is."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.dataplane.chunks import Encoding, detect
from app.domain.errors import JobError

HEAD_BYTES: Final = 64 * 1024
"""How much of a file is looked at."""
_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE_ROWS: Final = 200
_ARRAY: Final = re.compile(rb"\[\s*(?:[\[{\]]|$)")
_OBJECT: Final = re.compile(rb"\{\s*(?:[\"}]|$)")
_FOREIGN: Final = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\xd0\xcf\x11\xe0": "an old Office document (xls, doc)",
    b"PK\x03\x04": "a zip file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"BZh": "a bzip2 file",
    b"PAR1": "a Parquet file",
}
_UTF_16_SHARE: Final = 0.3


class Format(StrEnum):
    """How a file's records are written."""

    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"
    XLSX = "xlsx"


@dataclass(frozen=True, slots=True)
class Guess:
    """Something found by looking, and how sure it is, 0 to 1."""

    value: str
    confidence: float


def format_of(head: bytes) -> Format:
    """The format of a file that begins with ``head``; whatever text is no JSON may be CSV.

    Raises:
        JobError: ``source.format_unknown``: it is no text.
    """
    foreign = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign is not None:
        raise JobError(f"expected csv, ndjson, json or xlsx, got {foreign}", code="source.format_unknown")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head.decode("utf-16", "ignore").lstrip().encode("utf-8", "ignore")
    if _ARRAY.match(text):
        return Format.JSON
    return Format.NDJSON if _OBJECT.match(text) else Format.CSV


def encoding_of(head: bytes, asked: str) -> tuple[Encoding, int, float]:
    """The encoding of a file, the length of its byte order mark, and how sure that is.

    Args:
        asked: ``auto``, or as ``chunks.detect`` takes it.
    """
    encoding, mark = detect(head, "utf-8" if asked == "auto" else asked)
    if asked != "auto" or mark:
        return encoding, mark, 1.0
    for place, wide in ((1, Encoding.UTF_16_LE), (0, Encoding.UTF_16_BE)):
        half = head[place::2]
        if half and half.count(0) > _UTF_16_SHARE * len(half) and not head[1 - place :: 2].count(0):
            return wide, 0, 0.9
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return Encoding.LATIN_1, 0, 0.6
    # Of a file that is ASCII so far any of the encodings may be meant.
    return Encoding.UTF_8, 0, 0.8 if head.isascii() else 0.99


def delimiter_of(head: bytes, encoding: Encoding, *, skip_rows: int = 0) -> Guess:
    """The delimiter by which the first records have most often the same number of fields, more than one.

    The confidence is the part of the records that has it; 0.5 for a file of one column, where nothing is parted.
    """
    text = head.decode(encoding, "replace")
    if len(head) >= HEAD_BYTES:
        text = text[: text.rfind("\n") + 1] or text
    text = "".join(io.StringIO(text, newline="").readlines()[skip_rows:])
    best = max((_judged(text, delimiter) for delimiter in _DELIMITERS), key=lambda found: found[:2])
    share, fields, delimiter = best
    return Guess(delimiter, round(share, 2)) if fields > 1 else Guess(",", 0.5)


def _judged(text: str, delimiter: str) -> tuple[float, int, str]:
    widths: Counter[int] = Counter()
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            widths[len(row)] += bool(row)
            if widths.total() >= _SAMPLE_ROWS:
                break
    except csv.Error:
        return 0.0, 0, delimiter
    most, count = max(widths.items(), key=lambda found: found[1], default=(0, 0))
    return (count / max(1, widths.total()) if most > 1 else 0.0), most, delimiter
