"""The parts of an XLSX file: as streams of XML, and as calamine reads pieces of them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, Final
from xml.etree import ElementTree

import python_calamine as calamine
from isal import isal_zlib

TEXTS: Final = "xl/sharedStrings.xml"
"""The texts that cells have by number; calamine looks for them nowhere else."""
_SMALL: Final = ("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml")
_MOST_SMALL_BYTES: Final = 1 << 22
_READ_BYTES: Final = 1 << 16
_PIECE_BYTES: Final = 1 << 19
_HEADER_BYTES: Final = 30
_RAW_WINDOW_BITS: Final = -15
_NOT_DEFLATED: Any = isal_zlib.IsalError  # isal's own types call the class an instance
_OTHER_ENCODING: Final = re.compile(rb"""\s*+<\?xml [^>]*?encoding=["']((?!utf-8["']|UTF-8["'])[^"']*)""")
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SHEET: Final = f'<worksheet xmlns="{_MAIN}"><sheetData>%s</sheetData></worksheet>'


class NotPlainError(Exception):
    """A sheet is not of the form that is read in blocks; the argument says why."""


class Parts:
    """A workbook on disk and a sheet of it, by its name or its number, counted from 1.

    Raises:
        zipfile.BadZipFile: It is none; and what else ``zipfile`` and ``ElementTree`` raise of one that is broken.
    """

    def __init__(self, path: str, sheet: str | int) -> None:
        self._path = path
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename: info for info in archive.infolist()}
            self._small = {name: archive.read(name) for name in _SMALL if name in self._members}
        book, relations = self._small["xl/workbook.xml"], self._small["xl/_rels/workbook.xml.rels"]
        self.name, self.sheet = _name_and_target(book, relations, sheet)
        self.part_read = 0.0
        """Of the sheet, 0 to 1."""

    def stream(self, name: str) -> Iterator[bytes]:
        """What a part holds, in pieces of at most half a MiB; in UTF-8 if it is text.

        Raises:
            NotPlainError: It is missing, packed otherwise than by deflate, broken, or not in UTF-8.
        """
        info = self._members.get(name)
        if info is None or info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & 1:
            raise NotPlainError(f"{name} is not there, or not deflated")
        length = checksum = 0
        for piece in _inflated(name, self._packed(info)):
            if not length and _OTHER_ENCODING.match(piece):
                raise NotPlainError(f"{name} is in another encoding")
            length, checksum = length + len(piece), isal_zlib.crc32(piece, checksum)
            if length > info.file_size:
                raise NotPlainError(f"{name} is longer than the directory says")
            yield piece
        if length != info.file_size or checksum != info.CRC:
            raise NotPlainError(f"{name} is broken")

    def _packed(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        with Path(self._path).open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(_HEADER_BYTES)
            file.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28)), io.SEEK_CUR)
            left = info.compress_size
            while left and (data := file.read(min(left, _READ_BYTES))):
                left -= len(data)
                if info.filename == self.sheet:
                    self.part_read = 1 - left / info.compress_size
                yield data

    def values(self, cells: Sequence[bytes]) -> list[Any]:
        """What calamine reads in these cells, each of them the XML behind its place, up to its end tag.

        Raises:
            NotPlainError: It cannot read them.
        """
        rows = "".join(
            f'<row r="{at}"><c r="A{at}"{_text(cell)}</c><c r="B{at}"><v>0</v></c></row>'
            for at, cell in enumerate(cells, start=1)
        )
        return self._column(_SHEET % rows, None, len(cells))

    def texts(self, items: bytes) -> list[str]:
        """What calamine reads in some whole items of the shared texts; raises as ``values``."""
        count = items.count(b"<si")
        rows = "".join(
            f'<row r="{at}"><c r="A{at}" t="s"><v>{at - 1}</v></c><c r="B{at}"><v>0</v></c></row>'
            for at in range(1, count + 1)
        )
        return self._column(_SHEET % rows, f'<sst xmlns="{_MAIN}">'.encode() + items + b"</sst>", count)

    def _column(self, sheet: str, texts: bytes | None, count: int) -> list[Any]:
        """The first column of this sheet in the same workbook."""
        if sum(map(len, self._small.values())) > _MOST_SMALL_BYTES:
            raise NotPlainError("styles that take too long to be read again")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in self._small.items():
                archive.writestr(name, data)
            archive.writestr(self.sheet, sheet)
            if texts is not None:
                archive.writestr(TEXTS, texts)
        file.seek(0)
        try:
            found = [
                row[0] for row in calamine.CalamineWorkbook.from_filelike(file).get_sheet_by_name(self.name).iter_rows()
            ]
        except (calamine.CalamineError, LookupError, OverflowError) as error:
            raise NotPlainError("a cell or a text that cannot be read alone") from error
        if len(found) != count:
            raise NotPlainError("items that are not what they seem")
        return found


def _text(cell: bytes) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        raise NotPlainError("bytes that are not UTF-8") from None


def _inflated(name: str, packed: Iterator[bytes]) -> Iterator[bytes]:
    inflater = isal_zlib.decompressobj(wbits=_RAW_WINDOW_BITS)
    try:
        for data in packed:
            left = data
            while left and not inflater.eof:
                if piece := inflater.decompress(left, _PIECE_BYTES):
                    yield piece
                left = inflater.unconsumed_tail
        if piece := inflater.flush():
            yield piece
    except _NOT_DEFLATED as error:
        raise NotPlainError(f"{name} is broken") from error


def _name_and_target(book_xml: bytes, relations_xml: bytes, wanted: str | int) -> tuple[str, str]:
    """A sheet's name, and where it stands."""
    book, relations = map(_parsed, (book_xml, relations_xml))
    sheets = [element for element in book.iter() if element.tag.endswith("}sheet")]
    by_name = {element.get("name"): element for element in reversed(sheets)}
    sheet = sheets[wanted - 1] if isinstance(wanted, int) else by_name[wanted]
    ids = [value for name, value in sheet.items() if name.endswith("}id")]
    target = {one.get("Id"): one.get("Target", "") for one in relations}[ids[0]]
    return sheet.get("name", ""), target.lstrip("/") if target.startswith("/") else normpath(f"xl/{target}")


def _parsed(xml: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - Expat refuses entities that grow; this process has a limit of memory
