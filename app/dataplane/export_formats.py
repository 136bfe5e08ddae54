"""The formats of an export's file: how Postgres is asked to write them, and what is put around its rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

from app.dataplane.compressors import SUFFIXES, Compression
from app.dataplane.copied_rows import OPTIONS, WholeRows
from app.dataplane.encrypted_lines import EncryptedLines, LineKey
from app.dataplane.export import ExportStream
from app.dataplane.json_rows import JsonLines, select_json
from app.dataplane.parquet import ParquetFile
from app.dataplane.sheet_rows import SheetRows
from app.dataplane.vql.compiler import Statement
from app.dataplane.workbook import Workbook
from app.domain.tables import Column

FileFormat = Literal["csv", "ndjson", "json", "xlsx", "parquet"]
PACKED: Final = ("xlsx", "parquet")
"""Formats that are compressed in themselves, and whose parts are counted in rows."""

CONTENT_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
_OPENING: Final = b"[\n"
_COMMA: Final = b",\n"
_PACKED: Final = {"gzip": "application/gzip", "zstd": "application/zstd", "zip": "application/zip"}


class RowWriter(Protocol):
    """Takes what COPY writes of a statement's rows and makes the file of it."""

    options: str
    """Of the COPY."""

    @property
    def into(self) -> io.RawIOBase:
        """What COPY writes into."""
        ...

    @property
    def rows(self) -> int:
        """About how many rows are written."""
        ...

    def statement(self, rows: Statement) -> Statement:
        """The SELECT to be copied for ``rows``."""
        ...

    def finish(self) -> None:
        """Write what comes behind the last row."""
        ...

    def drop(self) -> None:
        """Let go of what is unfinished, once the stream is stopped; safe after ``finish``."""
        ...


def suffix_of(file_format: FileFormat, compression: Compression) -> str:
    """Of the file's name."""
    return f".{file_format}{SUFFIXES[compression]}"


def content_type_of(file_format: FileFormat, compression: Compression) -> str:
    """Of the stored file."""
    return _PACKED.get(compression) or CONTENT_TYPES[file_format]


def row_writer(
    file_format: FileFormat,
    stream: ExportStream,
    columns: Sequence[Column],
    *,
    header: bool,
    line_key: LineKey | None = None,
) -> RowWriter:
    """A writer of this format into ``stream``; with a key, of lines that are encrypted one by one."""
    if file_format == "csv":
        return _Csv(stream, header=header)
    if file_format == "xlsx":
        return _Sheets(stream, columns, header=header)
    if file_format == "parquet":
        return ParquetFile(stream, columns)
    if file_format == "json":
        return _Array(stream, columns)
    return _Lines(stream, columns, stream if line_key is None else EncryptedLines(stream, line_key))


class _Csv:
    def __init__(self, stream: ExportStream, *, header: bool) -> None:
        self.options = f"FORMAT csv, HEADER {'true' if header else 'false'}"
        self.into: io.RawIOBase = stream
        self._stream = stream
        self._header_lines = int(header)

    @property
    def rows(self) -> int:
        return max(0, self._stream.lines - self._header_lines)

    def statement(self, rows: Statement) -> Statement:
        return rows

    def finish(self) -> None:
        """A CSV file ends with its last row."""

    def drop(self) -> None:
        """Nothing is held."""


class _Lines:
    """A JSON object a line, every value in Postgres's own spelling, digits of numbers too."""

    options = OPTIONS

    def __init__(
        self, stream: ExportStream, columns: Sequence[Column], out: io.RawIOBase, *, end: bytes = b"\n"
    ) -> None:
        self.into: io.RawIOBase = WholeRows(JsonLines(columns, end=end).spelled, out)
        self._stream = stream
        self._columns = columns

    @property
    def rows(self) -> int:
        return self._stream.lines

    def statement(self, rows: Statement) -> Statement:
        return Statement(select_json(rows.sql, self._columns), rows.parameters)

    def finish(self) -> None:
        """The last row's line end is there."""

    def drop(self) -> None:
        """Nothing is held."""


class _Array(_Lines):
    """The lines as elements of one array, an element a line."""

    def __init__(self, stream: ExportStream, columns: Sequence[Column]) -> None:
        self._elements = _Elements(stream)
        super().__init__(stream, columns, self._elements, end=_COMMA)

    def finish(self) -> None:
        self._elements.finish()


class _Elements(io.RawIOBase):
    """Takes whole rows with a comma behind each, and leaves out the last one."""

    def __init__(self, stream: ExportStream) -> None:
        super().__init__()
        self._stream = stream
        self._held = _OPENING

    def writable(self) -> bool:
        return True

    def write(self, block: Any, /) -> int:
        """Hold these rows, which may be the last of all, and write those before them."""
        self._stream.write(self._held)
        self._held = bytes(block)
        return len(block)

    def finish(self) -> None:
        self._stream.write(b"[]\n" if self._held is _OPENING else self._held.removesuffix(_COMMA) + b"\n]\n")


class _Sheets:
    options = OPTIONS

    def __init__(self, stream: ExportStream, columns: Sequence[Column], *, header: bool) -> None:
        self._workbook = Workbook(stream, [column.name for column in columns] if header else None)
        self.into: io.RawIOBase = WholeRows(SheetRows(columns).spelled, self._workbook)

    @property
    def rows(self) -> int:
        return self._workbook.rows

    def statement(self, rows: Statement) -> Statement:
        return rows

    def finish(self) -> None:
        self._workbook.finish()

    def drop(self) -> None:
        self._workbook.drop()
