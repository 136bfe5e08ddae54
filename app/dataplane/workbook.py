"""XLSX as a stream: Postgres writes the cells' XML, which goes into a zip file's entries as it comes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final
from xml.sax.saxutils import escape

from app.dataplane.vql.compiler import quoted
from app.domain.errors import JobError
from app.domain.tables import Column, ColumnType

MAX_SHEET_ROWS: Final = 1_048_576
"""Excel's; the header is one of them. What is beyond goes to the next sheet."""
MAX_CELL_CHARACTERS: Final = 32_767
_EXACT_DIGITS: Final = 15
"""Excel keeps numbers as doubles; longer ones are written as text."""
_LEVEL: Final = 1
_TOO_LONG: Final = "\x01"
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_NEEDS_ESCAPE: Final = re.compile("[\x01-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_INTEGERS: Final = frozenset({ColumnType.BIGINT, ColumnType.INTEGER})


def select_cells(rows: str, columns: Sequence[Column]) -> str:
    """A SELECT of one XML row for each row of the SELECT ``rows``."""
    cells = " || ".join(_cell(column) for column in columns)
    return f"SELECT '<row>' || {cells} || '</row>' FROM ({rows}) AS q"


def _cell(column: Column) -> str:
    name = f"q.{quoted(column.name)}"
    written = f"{name}::text"
    number = f"'<c><v>' || {written} || '</v></c>'"
    shown = _text_cell(written, column.name)
    if column.type is ColumnType.BOOLEAN:
        shown = f"'<c t=\"b\"><v>' || {name}::int || '</v></c>'"
    elif column.type in _INTEGERS:
        shown = f"CASE WHEN length({written}) <= {_EXACT_DIGITS} THEN {number} ELSE {shown} END"
    elif column.type in (ColumnType.NUMERIC, ColumnType.DOUBLE):
        # Not-a-number and infinity are no numbers to Excel.
        exact = f"{written} ~ '^[-+.0-9eE]+$'"
        if column.type is ColumnType.NUMERIC:
            exact += f" AND length({written}) <= {_EXACT_DIGITS}"
        shown = f"CASE WHEN {exact} THEN {number} ELSE {shown} END"
    return f"coalesce({shown}, '<c/>')"


def _text_cell(value: str, column: str) -> str:
    """An inline text, which is never a formula. One that Excel cannot hold leaves a mark that ``Workbook`` finds."""
    xml = f"replace(replace(replace(replace({value}, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), E'\\n', '&#10;')"
    odd = f"{value} ~ E'[\\x01-\\x08\\x0b-\\x1f\\uFFFE\\uFFFF]|_x[0-9A-Fa-f]{{4}}_'"
    body = f"CASE WHEN {odd} THEN {_escaped(xml)} ELSE {xml} END"
    mark = f"chr(1) || '{column}' || chr(1)"
    # Half of the limit: characters outside the basic plane count twice.
    return (
        f"CASE WHEN length({value}) * 2 > {MAX_CELL_CHARACTERS} AND {_units(value)} > {MAX_CELL_CHARACTERS} "
        f"THEN {mark} ELSE '<c t=\"inlineStr\"><is><t xml:space=\"preserve\">' || ({body}) || '</t></is></c>' END"
    )


def _units(value: str) -> str:
    return f"length({value}) + length(regexp_replace({value}, E'[\\u0001-\\uFFFF]', '', 'g'))"


def _escaped(xml: str) -> str:
    """``xml`` with what XML cannot hold spelled as Excel does, and what would be read as such a spelling too."""
    spelled = f"regexp_replace({xml}, '_(x[0-9A-Fa-f]{{4}}_)', '_x005F_\\1', 'g')"
    for code in (*range(0x01, 0x09), *range(0x0B, 0x20), 0xFFFE, 0xFFFF):
        spelled = f"replace({spelled}, chr({code}), '_x{code:04X}_')"
    return spelled


class Workbook(io.RawIOBase):
    """Takes XML rows, a line each, and writes a workbook.

    Args:
        out: Where the file goes; it is written from the beginning to the end.
        header: The first row of every sheet; ``None`` for none.
    """

    def __init__(self, out: io.RawIOBase, header: Sequence[str] | None, *, sheet_rows: int = MAX_SHEET_ROWS) -> None:
        super().__init__()
        self.rows = 0
        self._out = io.BufferedWriter(out, 1 << 20)
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._header = _header_row(header) if header is not None else b""
        self._most = sheet_rows - (header is not None)
        self._sheets = 0
        self._left = 0
        self._sheet: IO[bytes] | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Write some of the rows' lines.

        Raises:
            JobError: ``export.cell_too_long``.
        """
        data = bytes(block)
        if _TOO_LONG.encode() in data:
            raise _too_long(data)
        for piece in self._per_sheet(data):
            self._open_sheet().write(piece)
        return len(data)

    def finish(self) -> None:
        """End the last sheet and write what lists them all."""
        self._open_sheet()
        self._close_sheet()
        for name, body in _parts(self._sheets):
            self._zip.writestr(_entry(name), _HEAD + body)
        self._zip.close()
        self._out.flush()

    def drop(self) -> None:
        """End what is unfinished; ``out`` must take nothing more. Safe after ``finish``."""
        self._close_sheet()
        self._zip.close()

    def _per_sheet(self, data: bytes) -> Iterator[bytes]:
        """``data`` cut where a sheet is full; a sheet is closed once its successor has a row."""
        while data:
            if self._sheet is not None and not self._left:
                self._close_sheet()
            self._open_sheet()
            lines = data.count(b"\n")
            taken = len(data) if lines < self._left else _place_behind(data, self._left)
            done = min(lines, self._left)
            self._left -= done
            self.rows += done
            yield data[:taken]
            data = data[taken:]

    def _open_sheet(self) -> IO[bytes]:
        if self._sheet is None:
            self._sheets += 1
            self._left = self._most
            self._sheet = self._zip.open(_entry(f"xl/worksheets/sheet{self._sheets}.xml"), "w", force_zip64=True)
            self._sheet.write(f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>\n'.encode() + self._header)
        return self._sheet

    def _close_sheet(self) -> None:
        if self._sheet is not None:
            self._sheet.write(b"</sheetData></worksheet>")
            self._sheet.close()
            self._sheet = None


def _place_behind(data: bytes, lines: int) -> int:
    """The byte behind so many line ends."""
    place = 0
    for _ in range(lines):
        place = data.index(b"\n", place) + 1
    return place


def _entry(name: str) -> zipfile.ZipInfo:
    # One fixed time: the same rows make the same file.
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _header_row(names: Sequence[str]) -> bytes:
    cells = "".join(f'<c t="inlineStr"><is><t xml:space="preserve">{_xml(name)}</t></is></c>' for name in names)
    return f"<row>{cells}</row>\n".encode()


def _xml(name: str) -> str:
    return escape(_NEEDS_ESCAPE.sub(lambda found: f"_x{ord(found[0]):04X}_", name))


def _too_long(data: bytes) -> JobError:
    column = data.split(_TOO_LONG.encode(), 2)[1].decode()
    return JobError(
        f"a cell of XLSX holds at most {MAX_CELL_CHARACTERS} characters, and column {column!r} has a longer text",
        code="export.cell_too_long",
    )


def _parts(sheets: int) -> Iterator[tuple[str, str]]:
    numbers = range(1, sheets + 1)
    overrides = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{_TYPE}.worksheet+xml"/>' for n in numbers
    )
    yield (
        "[Content_Types].xml",
        (
            f'<Types xmlns="{_PACKAGE}/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>{overrides}</Types>'
        ),
    )
    yield (
        "_rels/.rels",
        (
            f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="rId1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
        ),
    )
    listed = "".join(f'<sheet name="Sheet{n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
    yield (
        "xl/workbook.xml",
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>{listed}</sheets></workbook>',
    )
    related = "".join(
        f'<Relationship Id="rId{n}" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    yield ("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_PACKAGE}/relationships">{related}</Relationships>')
