"""XLSX as a stream: rows of XML go into a zip file's members as they come."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from app.dataplane.sheet_rows import header_row
from app.dataplane.zip_stream import ZipStream

MAX_SHEET_ROWS: Final = 1_048_576
"""Excel's; the header is one of them. What is beyond goes to the next sheet."""
_BLOCKS_WAITING: Final = 4
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


class Workbook(io.RawIOBase):
    """Takes XML rows, a line each, and writes a workbook; a thread packs them.

    Args:
        out: Where the file goes; it is written from the beginning to the end.
        header: The first row of every sheet; ``None`` for none.
    """

    def __init__(self, out: io.RawIOBase, header: Sequence[str] | None, *, sheet_rows: int = MAX_SHEET_ROWS) -> None:
        super().__init__()
        self.rows = 0
        self._out = io.BufferedWriter(out, 1 << 20)
        self._zip = ZipStream()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="workbook")
        self._packed: deque[Future[bytes]] = deque()
        self._header = header_row(header) if header is not None else b""
        self._most = sheet_rows - (header is not None)
        self._sheets = 0
        self._left = 0
        self._in_sheet = False

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Write some of the rows' lines."""
        data = bytes(block)
        for piece in self._per_sheet(data):
            self._pack(self._zip.compress, piece)
        return len(data)

    def finish(self) -> None:
        """End the last sheet and write what lists them all."""
        self._open_sheet()
        self._close_sheet()
        for name, body in _parts(self._sheets):
            self._pack(self._zip.add, name, f"{_HEAD}{body}".encode())
        self._pack(self._zip.finish)
        self._write(waiting=0)
        self._out.flush()

    def drop(self) -> None:
        """End what is unfinished; ``out`` must take nothing more. Safe after ``finish``."""
        self._thread.shutdown(cancel_futures=True)
        self._out.close()

    def _per_sheet(self, data: bytes) -> Iterator[bytes]:
        """``data`` cut where a sheet is full; a sheet is closed once its successor has a row."""
        while data:
            if self._in_sheet and not self._left:
                self._close_sheet()
            self._open_sheet()
            lines = data.count(b"\n")
            taken = len(data) if lines < self._left else _place_behind(data, self._left)
            done = min(lines, self._left)
            self._left -= done
            self.rows += done
            yield data[:taken]
            data = data[taken:]

    def _open_sheet(self) -> None:
        if not self._in_sheet:
            self._sheets += 1
            self._left = self._most
            self._in_sheet = True
            head = f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>\n'.encode()
            self._pack(self._zip.begin, f"xl/worksheets/sheet{self._sheets}.xml")
            self._pack(self._zip.compress, head + self._header)

    def _close_sheet(self) -> None:
        if self._in_sheet:
            self._pack(self._zip.compress, b"</sheetData></worksheet>")
            self._pack(self._zip.end)
            self._in_sheet = False

    def _pack(self, step: Callable[..., bytes], *arguments: Any) -> None:
        """Have the thread do a step of the zip file; write what the steps before it made."""
        self._packed.append(self._thread.submit(step, *arguments))
        self._write(waiting=_BLOCKS_WAITING)

    def _write(self, *, waiting: int) -> None:
        while len(self._packed) > waiting:
            self._out.write(self._packed.popleft().result())


def _place_behind(data: bytes, lines: int) -> int:
    """The byte behind so many line ends."""
    place = 0
    for _ in range(lines):
        place = data.index(b"\n", place) + 1
    return place


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
