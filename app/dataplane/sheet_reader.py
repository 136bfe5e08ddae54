"""One sheet of an XLSX file as NDJSON: a program, so that what a file costs in memory is held to a limit.

``python -m app.dataplane.sheet_reader`` is given a ``Wanted`` as JSON, and writes a line for each row of the
sheet, some at a time behind a ``Frame``, in columns where it can; or the names of all sheets. What it refuses it says
in a line on its standard error.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final
from xml.etree import ElementTree

import msgspec
import python_calamine as calamine
from isal import isal_zlib

from app.dataplane.plain_sheet import PlainSheet, place_of
from app.dataplane.sheet_cells import Column, whole_number
from app.dataplane.sheet_lines import Block, Lines, key_of, lines_of, name_of
from app.dataplane.sheet_parts import NotPlainError, Parts

MOST_ROWS: Final = 1_048_576
"""More no sheet has."""
VERSION: Final = 1
"""Raised when it writes other lines for a sheet than before."""
REFUSED: Final = 3
"""The status that the program ends with when it says why."""

_BLOCK_BYTES: Final = 1 << 20
_ROWS_AT_ONCE: Final = 200
_ERROR: Final = re.compile(rb'<c r="([A-Z]+)([0-9]+)"[^>]* t="e"[^>]*>(?:(?!</c>).)*?<v>([^<]*)</v>', re.DOTALL)
_Row = list[Any]
_BROKEN: Final = (
    calamine.CalamineError,
    zipfile.BadZipFile,
    zlib.error,
    ElementTree.ParseError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
)
_Span = tuple[int, int, int, int]


class Wanted(msgspec.Struct, frozen=True):
    """What is to be read.

    Args:
        sheet: Its name, or its number, counted from 1; ``None``: a line with the names of all, and nothing else.
        names: Of the columns; those beyond the sheet's width are left out. ``None``: the first row has them.
        skip_rows: Rows before that one, or before the first record.
        fill_merged: Merged cells all have the value of the first.
    """

    path: str
    sheet: str | int | None
    names: list[str] | None
    skip_rows: int
    fill_merged: bool
    max_cells: int
    memory_bytes: int


class Found(msgspec.Struct, frozen=True):
    """What was found: the sheet's name, its named columns, the row of the first record, and how wide it is."""

    sheet: str
    names: list[str]
    first_row: int
    width: int


class Frame(msgspec.Struct, frozen=True):
    """What goes before some whole lines.

    Args:
        found: As far as it is known; the names are.
        part: Of the sheet that is read when these lines are, 0 to 1.
        size_bytes: Of the lines; 0 says that all is written.
        count: Of the lines, when columns follow instead of them.
        columns: The key of each, its bytes, and whether it is of texts.
    """

    found: Found
    part: float
    size_bytes: int
    count: int = 0
    columns: list[tuple[str, int, bool]] = []


def behind(frame: Frame, read: Callable[[int], bytes]) -> bytes | Block:
    """The lines that follow a frame; ``read`` gives just so many bytes."""
    if not frame.columns:
        return read(frame.size_bytes)
    return Block(frame.count, [(key, Column(read(size), is_text)) for key, size, is_text in frame.columns])


Put = Callable[[bytes | Block, Found, float], Any]
"""Writes some whole lines; what was found, and which part of the sheet is read."""


class RefusedError(Exception):
    """A file that is not taken; the first argument is the code, the second says why."""


def listed(path: str) -> list[str]:
    """The names of a workbook's sheets in their order, without those of charts.

    Raises:
        RefusedError: The file is none.
    """
    try:
        sheets = calamine.CalamineWorkbook.from_path(path).sheets_metadata
        return [one.name for one in sheets if one.typ == calamine.SheetTypeEnum.WorkSheet]
    except _BROKEN as error:
        raise _corrupt(error) from error


def convert(wanted: Wanted, write: Callable[[bytes], Any]) -> None:
    """Write what is wanted.

    Raises:
        RefusedError: The file is none, lacks the sheet, or is too large.
    """

    def put(some: bytes | Block, found: Found, part: float) -> None:
        if isinstance(some, Block):
            columns = [(key, len(column.joined), column.is_text) for key, column in some.columns]
            frame = Frame(found, part, some.size_bytes, some.count, columns)
            some = b"".join(column.joined for _, column in some.columns)
        else:
            frame = Frame(found, part, len(some))
        write(msgspec.json.encode(frame) + b"\n" + some)

    found = read(wanted, put) if wanted.names is None else _read_before(wanted, put)
    put(b"", found, 1.0)


def _read_before(wanted: Wanted, put: Put) -> Found:
    """The same, all of it before the first is written: which of the names have a column is known in the end."""
    with tempfile.TemporaryFile() as file:
        found = read(wanted, lambda some, *_: file.write(lines_of(some)))
        whole = file.tell()
        file.seek(0)
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            lines, end, rest = (rest + block).rpartition(b"\n")
            if end:
                put(lines + end, found, file.tell() / whole)
    return found


def read(wanted: Wanted, put: Put) -> Found:
    """Write the lines of a sheet; raises as ``convert``."""
    with suppress(NotPlainError, *_BROKEN):
        return _plainly(wanted, put)
    # By now what the first way held is free.
    again = _Again(put)
    with suppress(NotPlainError, *_BROKEN):
        _plainly(wanted, again.expect)
    found = _by_calamine(wanted, again.put)
    again.check()
    return found


class _Again:
    """Lines that were written before a sheet is read in another way; they are left out once they have come again."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._left = self._sum = self._sum_again = 0

    def expect(self, some: bytes | Block, *_: Any) -> None:
        """Take note of lines that were written."""
        lines = lines_of(some)
        self._left, self._sum = self._left + len(lines), isal_zlib.crc32(lines, self._sum)

    def put(self, some: bytes | Block, found: Found, part: float) -> None:
        """Write those that were not."""
        lines = lines_of(some)
        again, new = lines[: self._left], lines[self._left :]
        self._left -= len(again)
        self._sum_again = isal_zlib.crc32(again, self._sum_again)
        if new:
            self.check()
            self._put(new, found, part)

    def check(self) -> None:
        """Refuse a sheet whose lines were others before."""
        if self._left or self._sum_again != self._sum:
            raise RefusedError(
                "xlsx.read_in_two_ways",
                "the sheet was read in two ways, and they differ: this is a fault of Haulier, or the file is broken",
            )


def _plainly(wanted: Wanted, put: Put) -> Found:
    """Write the lines of a plain sheet.

    Raises:
        NotPlainError: It is none from where the lines end that were written, or is to be refused.
    """
    if wanted.fill_merged or wanted.sheet is None:
        raise NotPlainError("which cells are merged is said behind the rows")
    parts = Parts(wanted.path, wanted.sheet)
    sheet = PlainSheet(parts)

    def found() -> Found:
        names = [name for name in (lines.names or ())[: sheet.width] if name]
        return Found(parts.name, names, lines.first_row, sheet.width)

    lines = Lines(wanted.names, wanted.skip_rows, lambda some: put(some, found(), parts.part_read))
    for rows in sheet.rows():
        if not sheet.begins_with_a:
            raise NotPlainError("the first column may be empty, which is left out then")
        if rows.numbers[-1] * sheet.width > wanted.max_cells:
            raise NotPlainError("too many cells")
        lines.add(rows)
    if not sheet.width or lines.names is None:
        raise NotPlainError("nothing in it")
    return found()


def _by_calamine(wanted: Wanted, put: Put) -> Found:
    """Write the lines of any sheet."""
    sheet = _opened(wanted)
    _check_size(sheet, wanted)
    try:
        errors = _errors(wanted.path, sheet.name)
    except _BROKEN as error:
        raise _corrupt(error) from error
    left_out = sheet.start[1] if sheet.start else 0
    told = _with_errors(sheet.iter_rows(), errors, left_out)
    merged = sheet.merged_cell_ranges or ()
    every = enumerate(_filled(told, merged, left_out) if wanted.fill_merged else told, start=1)
    rows = islice(every, wanted.skip_rows, None)
    header, first_row = wanted.names, wanted.skip_rows + 1
    if header is None:
        number, cells = next(((number, row) for number, row in rows if any(cell != "" for cell in row)), (0, []))
        if not number:
            raise RefusedError("csv.empty", f"the sheet {sheet.name!r} is empty: expected a row with names")
        header, first_row = [name_of(cell) for cell in cells], number + 1
    height, width = _size(sheet)
    keys = [key_of(header, place) for place in range(width)]
    found = Found(sheet.name, [name for name in header[:width] if name], first_row, width)
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        put(b"".join(_line(keys, row) for _, row in some), found, some[-1][0] / height)
    return found


def _opened(wanted: Wanted) -> calamine.CalamineSheet:
    try:
        book = calamine.CalamineWorkbook.from_path(wanted.path)
        if isinstance(wanted.sheet, str) and wanted.sheet in book.sheet_names:
            return book.get_sheet_by_name(wanted.sheet)
        if isinstance(wanted.sheet, int) and wanted.sheet <= len(book.sheet_names):
            return book.get_sheet_by_index(wanted.sheet - 1)
    except _BROKEN as error:
        raise _corrupt(error) from error
    names = ", ".join(map(repr, book.sheet_names[:20]))
    raise RefusedError("xlsx.no_sheet", f"expected one of the sheets {names}, got {wanted.sheet!r}")


def _corrupt(error: Exception) -> RefusedError:
    return RefusedError("source.corrupt", f"the file is not valid XLSX: {error!r:.500}")


def _check_size(sheet: calamine.CalamineSheet, wanted: Wanted) -> None:
    height, width = _size(sheet)
    if height > MOST_ROWS:
        raise RefusedError(
            "xlsx.too_many_rows", f"a sheet has at most {MOST_ROWS} rows, {sheet.name!r} has a row {height}"
        )
    if height * width > wanted.max_cells:
        raise RefusedError(
            "xlsx.too_large",
            f"the sheet {sheet.name!r} has {height} rows of {width} cells, at most {wanted.max_cells} cells are taken",
        )


def _size(sheet: calamine.CalamineSheet) -> tuple[int, int]:
    """Rows and columns, from the first of the sheet on."""
    row, column = sheet.end or (-1, -1)
    return row + 1, column + 1


def _line(keys: Sequence[str], row: _Row) -> bytes:
    record = {key: whole_number(cell) for key, cell in zip(keys, row, strict=False) if cell != ""}
    return msgspec.json.encode(record) + b"\n" if record else b"\n"


def _errors(path: str, sheet: str) -> dict[int, dict[int, str]]:
    """Cells whose formula came to an error, by row and column: calamine has nothing there."""
    found: dict[int, dict[int, str]] = {}
    rest = b""
    with zipfile.ZipFile(path) as archive, archive.open(Parts(path, sheet).sheet) as file:
        while block := file.read(_BLOCK_BYTES):
            whole, end, rest = (rest + block).rpartition(b"</c>")
            rest = rest[-_BLOCK_BYTES:]
            if b't="e"' not in whole:
                continue
            for letters, row, error in _ERROR.findall(whole + end):
                found.setdefault(int(row) - 1, {})[place_of(letters)] = error.decode()
    return found


def _with_errors(rows: Iterator[_Row], errors: Mapping[int, Mapping[int, str]], left_out: int) -> Iterator[_Row]:
    """The rows with their errors; they lack so many columns that are empty before the first."""
    if not errors:
        return rows
    return (_put(row, errors.get(number, {}), left_out) for number, row in enumerate(rows))


def _put(row: _Row, errors: Mapping[int, str], left_out: int) -> _Row:
    for column, error in errors.items():
        row[column - left_out] = error
    return row


def _filled(
    rows: Iterator[_Row], merged: Iterable[tuple[tuple[int, int], tuple[int, int]]], left_out: int
) -> Iterator[_Row]:
    """The rows, with the value of merged cells in each of them; ``left_out`` as before."""
    spans = sorted((top, left - left_out, bottom, right - left_out) for (top, left), (bottom, right) in merged)
    spans.reverse()
    open_spans: list[tuple[_Span, Any]] = []
    for number, row in enumerate(rows):
        open_spans = [(span, value) for span, value in open_spans if span[2] >= number]
        while spans and spans[-1][0] <= number:
            span = spans.pop()
            open_spans.append((span, row[span[1]] if 0 <= span[1] < len(row) else ""))
        for (_, left, _, right), value in open_spans:
            for place in range(max(left, 0), min(right + 1, len(row))):
                row[place] = value
        yield row


def main() -> int:
    """Run the program; its status."""
    wanted = msgspec.json.decode(sys.argv[1], type=Wanted)
    resource.setrlimit(resource.RLIMIT_AS, (wanted.memory_bytes, wanted.memory_bytes))
    try:
        if wanted.sheet is None:
            sys.stdout.buffer.write(msgspec.json.encode(listed(wanted.path)) + b"\n")
        else:
            convert(wanted, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
    except RefusedError as error:
        sys.stderr.write(msgspec.json.encode(error.args).decode())
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
