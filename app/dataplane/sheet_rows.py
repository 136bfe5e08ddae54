"""Rows as the XML of a worksheet; texts are inline, and never formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from app.dataplane.copied_rows import DELIMITER, Frame, cells_of, changed_cells, holds_controls
from app.domain.errors import JobError
from app.domain.tables import Column, ColumnType

MAX_CELL_CHARACTERS: Final = 32_767
"""In UTF-16, as Excel counts."""
_EXACT_DIGITS: Final = 15
"""Excel keeps numbers as doubles; longer ones are written as text."""
_NUMBERS: Final = (ColumnType.INTEGER, ColumnType.BIGINT, ColumnType.NUMERIC, ColumnType.DOUBLE)

_TEXT, _NUMBER, _BOOLEAN, _SPARE, _NO_NUMBER = b"\x03", b"\x04", b"\x05", b"\x06", b"\x07"
"""Stand for openings, nothing, and what is written into a number's cell without being one."""
_OPENINGS: Final = {
    _TEXT: b'<c t="inlineStr"><is><t xml:space="preserve">',
    _NUMBER: b"<c><v>",
    _BOOLEAN: b'<c t="b"><v>',
}
_TEXT_CLOSING: Final = b"</t></is></c>"
_VALUE_CLOSING: Final = b"</v></c>".rjust(len(_TEXT_CLOSING), _SPARE)

_ESCAPED: Final = re.compile(rb"\\.|[\x01\x03-\x07\x0e-\x1f]|\xef\xbf[\xbe\xbf]|_(?=x[0-9A-Fa-f]{4}_)", re.DOTALL)
_SPELLING: Final = re.compile(rb"_(?=x[0-9A-Fa-f]{4}_)")
_FIRST_BYTES: Final = (b"\\", b"\xef")
"""Of other things to be spelled; to look for one byte costs a tenth of looking for two."""
_LETTER: Final = re.compile(rb"\\.", re.DOTALL)
_SPELLED: Final = {
    b"\xef\xbf\xbe": b"_xFFFE_",
    b"\xef\xbf\xbf": b"_xFFFF_",
    b"_": b"_x005F_",
    b"\\" + DELIMITER: b"_x0002_",
    rb"\b": b"_x0008_",
    rb"\v": b"_x000B_",
    rb"\f": b"_x000C_",
    rb"\r": b"_x000D_",
    rb"\t": b"\t",
    rb"\n": b"&#10;",
    rb"\\": b"\\",
    **{bytes([code]): b"_x%04X_" % code for code in range(0x20)},
}
"""How the XML of Excel spells what COPY writes otherwise, or XML cannot hold, or Excel would read as a spelling."""


class SheetRows:
    """Makes XML rows, a line each, of rows of ``copied_rows``."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._marks = {_TEXT, *map(_mark, columns)}
        self._frame = Frame(
            [_mark(column) for column in columns],
            [_TEXT_CLOSING if _mark(column) == _TEXT else _VALUE_CLOSING for column in columns],
            begin=b"<row>",
            between=b"",
            end=b"</row>\n",
            null=b"<c/>",
            spare=_SPARE,
            closing_bytes=len(_TEXT_CLOSING),
        )

    def spelled(self, rows: bytes) -> bytes:
        """The XML of these whole rows.

        Raises:
            JobError: ``export.cell_too_long``.
        """
        controls = holds_controls(rows)
        if controls or _may_be_too_long(rows):
            self._check_lengths(rows)
        rows = rows.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
        if controls or any(byte in rows for byte in _FIRST_BYTES) or (b"_" in rows and _SPELLING.search(rows)):
            rows = _ESCAPED.sub(lambda found: _SPELLED[found[0]], rows)
        return self._opened(self._frame.around(changed_cells(rows, self._columns, _CHANGES)))

    def _opened(self, xml: bytes) -> bytes:
        if _NO_NUMBER in xml:
            xml = xml.replace(_NUMBER + _NO_NUMBER, _TEXT).replace(_NO_NUMBER + b"</v></c>", _TEXT_CLOSING)
        for mark in self._marks:
            xml = xml.replace(mark, _OPENINGS[mark])
        return xml

    def _check_lengths(self, rows: bytes) -> None:
        width = len(self._columns)
        for place, cell in enumerate(cells_of(_LETTER.sub(b"?", rows))):
            if len(cell) > MAX_CELL_CHARACTERS and len(cell.decode().encode("utf-16-le")) > 2 * MAX_CELL_CHARACTERS:
                raise JobError(
                    f"a cell of XLSX holds at most {MAX_CELL_CHARACTERS} characters, and column "
                    f"{self._columns[place % width].name!r} has a longer text",
                    code="export.cell_too_long",
                )


def header_row(names: Sequence[str]) -> bytes:
    """The XML row of these texts, which are names of columns."""
    columns = [Column(name, ColumnType.TEXT) for name in names]
    return SheetRows(columns).spelled(DELIMITER.join(name.encode() for name in names) + b"\n")


def _mark(column: Column) -> bytes:
    if column.type in _NUMBERS:
        return _NUMBER
    return _BOOLEAN if column.type is ColumnType.BOOLEAN else _TEXT


def _may_be_too_long(rows: bytes) -> bool:
    """Whether so many bytes have no cell's end; a few looks at each block."""
    start = 0
    while len(rows) - start > MAX_CELL_CHARACTERS:
        end = start + MAX_CELL_CHARACTERS + 1
        last = max(rows.rfind(DELIMITER, start, end), rows.rfind(b"\n", start, end))
        if last < 0:
            return True
        start = last + 1
    return False


def _booleans(cells: bytes) -> bytes:
    return cells.replace(b"t", b"1").replace(b"f", b"0")


def _marked(pattern: bytes) -> Callable[[bytes], bytes]:
    """Marks cells of numbers that Excel could not keep."""
    inexact = re.compile(rb"(?<![^\x02])(?:" + pattern + rb")")
    return lambda cells: inexact.sub(_NO_NUMBER + rb"\g<0>" + _NO_NUMBER, cells)


_LONG: Final = rb"[^\x02]{%d,}" % (_EXACT_DIGITS + 1)
_NOT_FINITE: Final = rb"NaN|-?Infinity"
_CHANGES: Final[dict[ColumnType, Callable[[bytes], bytes]]] = {
    ColumnType.BOOLEAN: _booleans,
    ColumnType.BIGINT: _marked(_LONG),
    ColumnType.NUMERIC: _marked(_LONG + b"|" + _NOT_FINITE),
    ColumnType.DOUBLE: _marked(_NOT_FINITE),
}
