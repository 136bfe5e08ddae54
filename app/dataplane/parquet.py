"""Parquet from what Postgres copies as text: Arrow reads it, a mebibyte at a time, and writes row groups."""

from __future__ import annotations

import importlib.util
import io
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from app.dataplane.copied_rows import DELIMITER, NULL, OPTIONS, WholeRows
from app.dataplane.export import BLOCK_BYTES, ExportStream
from app.dataplane.vql.compiler import Statement, quoted
from app.domain.errors import JobError
from app.domain.tables import Column, ColumnType

GROUP_BYTES: Final = 8 * 2**20
"""Of COPY's text that make one row group."""
_CODEC: Final = "zstd"
_DICTIONARY_BYTES: Final = 2**17
"""A column with a larger dictionary is written plain. With Arrow's own limit, 1 MiB, it takes longer and packs less."""
_POOL: Final = "jemalloc"
"""Arrow's own, mimalloc, holds 10 MB more at the peak and takes a tenth longer; the system's holds 50 MB more."""
_BLOCKS_WAITING: Final = 2
_TEXTS: Final = (ColumnType.TEXT, ColumnType.TEXT_ARRAY, ColumnType.JSON)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LETTER: Final = re.compile(rb"\\.", re.DOTALL)
_SPELLED_DELIMITER: Final = rb"\2"
_BACKSLASHES: Final = "\\\\", "\0"
"""A pair of them, and what no text of Postgres holds."""
_LETTERS: Final = {"b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "2": DELIMITER.decode()}
"""What COPY spells with a backslash and a letter; the delimiter is given one here."""


def is_there() -> bool:
    """Whether pyarrow is installed (the extra ``parquet``)."""
    return importlib.util.find_spec("pyarrow") is not None


def select_values(rows: str, columns: Sequence[Column]) -> str:
    """A SELECT of each row of the SELECT ``rows`` in the spelling that Arrow reads exactly."""
    return f"SELECT {', '.join(_value(column) for column in columns)} FROM ({rows}) AS q"


def _value(column: Column) -> str:
    name = f"q.{quoted(column.name)}"
    if column.type is ColumnType.DATE:
        return f"{name} - date '1970-01-01'"
    if column.type is ColumnType.TIMESTAMPTZ:
        return f"(extract(epoch FROM {name}) * 1000000)::bigint"
    return f"to_json({name})" if column.type is ColumnType.TEXT_ARRAY else name


@dataclass(frozen=True, slots=True)
class _Packed:
    """What has become ready of the file, and how many rows were read for it."""

    rows: int
    data: bytes


class ParquetFile(io.RawIOBase):
    """Takes whole rows of ``copied_rows`` and writes a file; a thread packs them.

    Args:
        stream: Where the file goes.
    """

    options = OPTIONS

    def __init__(self, stream: ExportStream, columns: Sequence[Column]) -> None:
        super().__init__()
        if not is_there():
            raise JobError("this worker has no pyarrow to write Parquet with", code="export.no_parquet")
        self.rows = 0
        self.into: io.RawIOBase = WholeRows(_without_delimiters, self, rows_bytes=BLOCK_BYTES)
        self._stream = stream
        self._columns = columns
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._packed: deque[Future[_Packed]] = deque()
        self._groups = _Groups(columns)

    def statement(self, rows: Statement) -> Statement:
        """The SELECT to be copied for ``rows``."""
        return Statement(select_values(rows.sql, self._columns), rows.parameters)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Take whole rows; those of 8 MiB make a group."""
        self._pack(self._groups.read, bytes(block))
        return len(block)

    def finish(self) -> None:
        """Write the last group and the footer."""
        self._pack(self._groups.finish)
        self._write(waiting=0)

    def drop(self) -> None:
        """End what is unfinished; safe after ``finish``."""
        self._thread.shutdown(cancel_futures=True)

    def _pack(self, step: Callable[..., _Packed], *arguments: Any) -> None:
        self._packed.append(self._thread.submit(step, *arguments))
        self._write(waiting=_BLOCKS_WAITING)

    def _write(self, *, waiting: int) -> None:
        while len(self._packed) > waiting:
            packed = self._packed.popleft().result()
            self.rows += packed.rows
            if packed.data:
                self._stream.write(packed.data)


class _Groups:
    """The row groups of one file. Its methods are called by one thread, which is also the one to load Arrow."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._arrow: _Arrow | None = None
        self._tables: list[Any] = []
        self._held_bytes = 0

    def read(self, rows: bytes) -> _Packed:
        """Take whole rows."""
        self._arrow = self._arrow or _Arrow(self._columns)
        table = self._arrow.table(rows)
        self._tables.append(table)
        self._held_bytes += len(rows)
        if self._held_bytes >= GROUP_BYTES:
            self._write_group(self._arrow)
        return _Packed(table.num_rows, self._arrow.taken())

    def finish(self) -> _Packed:
        """The rest of the file, of one without rows too."""
        self._arrow = self._arrow or _Arrow(self._columns)
        self._write_group(self._arrow)
        self._arrow.writer.close()
        return _Packed(0, self._arrow.taken())

    def _write_group(self, arrow: _Arrow) -> None:
        if self._tables:
            arrow.write(self._tables)
            self._tables = []
            self._held_bytes = 0


class _Arrow:
    """Arrow's reader of text and its writer of Parquet, for some columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import pyarrow
        from pyarrow import csv, parquet

        self._pyarrow = pyarrow
        is_built_in = _POOL in pyarrow.supported_memory_backends()
        self._pool = pyarrow.jemalloc_memory_pool() if is_built_in else pyarrow.default_memory_pool()
        self._read = csv.read_csv
        self._read_options = csv.ReadOptions
        self._names = [column.name for column in columns]
        self._texts = [place for place, column in enumerate(columns) if column.type in _TEXTS]
        self._schema = pyarrow.schema([(column.name, _kept_as(pyarrow, column)) for column in columns])
        self._parse = csv.ParseOptions(
            delimiter=DELIMITER.decode(), quote_char=False, escape_char=False, ignore_empty_lines=False
        )
        read = {column.name: _read_as(pyarrow, column) for column in columns}
        self._others = [place for place, field in enumerate(self._schema) if field.type != read[field.name]]
        self._convert = csv.ConvertOptions(
            column_types=read,
            null_values=[NULL.decode()],
            strings_can_be_null=True,
            true_values=["t"],
            false_values=["f"],
            check_utf8=False,
        )
        self._sink = _Sink()
        self.writer = parquet.ParquetWriter(
            self._sink,
            self._schema,
            compression=_CODEC,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            memory_pool=self._pool,
        )

    def table(self, rows: bytes) -> Any:
        """What whole rows hold."""
        # Arrow takes one away from the beginning.
        read = _BYTE_ORDER_MARK + rows if rows.startswith(_BYTE_ORDER_MARK) else rows
        # A block that is the whole: a row that straddles two would be refused.
        how = self._read_options(column_names=self._names, block_size=len(read) + 1, use_threads=False)
        found = self._read(
            self._pyarrow.BufferReader(read),
            read_options=how,
            parse_options=self._parse,
            convert_options=self._convert,
            memory_pool=self._pool,
        )
        for place in self._others:
            found = found.set_column(place, self._schema.field(place), self._kept(found.column(place), place))
        if b"\\" in rows:
            for place in self._texts:
                found = found.set_column(place, self._schema.field(place), self._unescaped(found.column(place), rows))
        return found

    def write(self, tables: list[Any]) -> None:
        """Write a row group."""
        group = self._pyarrow.concat_tables(tables)
        self.writer.write_table(group, row_group_size=group.num_rows)

    def taken(self) -> bytes:
        """What was written since this was last asked."""
        data = b"".join(self._sink.written)
        self._sink.written.clear()
        return data

    def _kept(self, numbers: Any, place: int) -> Any:
        """Numbers of days and microseconds as what they are; a cast, or a replacement, loads 9 MB of Arrow more."""
        kind = self._schema.field(place).type
        return self._pyarrow.chunked_array([chunk.view(kind) for chunk in numbers.chunks], kind)

    def _unescaped(self, cells: Any, rows: bytes) -> Any:
        from pyarrow.compute import replace_substring

        replace = partial(replace_substring, memory_pool=self._pool)
        pair, mark = _BACKSLASHES
        cells = replace(cells, pair, mark)
        for letter, meant in _LETTERS.items():
            if b"\\" + letter.encode() in rows:
                cells = replace(cells, "\\" + letter, meant)
        return replace(cells, mark, "\\")


class _Sink:
    """What Arrow writes into."""

    closed = False
    mode = "wb"

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self._written_bytes = 0

    def write(self, data: Any, /) -> int:
        block = bytes(data)
        self._written_bytes += len(block)
        self.written.append(block)
        return len(block)

    def tell(self) -> int:
        return self._written_bytes

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The bytes are taken by who made it."""


def _without_delimiters(rows: bytes) -> bytes:
    """Whole rows, whose values spell the delimiter with a letter: Arrow knows no escapes."""
    spelled = b"\\" + DELIMITER
    if spelled not in rows:
        return rows
    return _LETTER.sub(lambda found: _SPELLED_DELIMITER if found[0] == spelled else found[0], rows)


def _read_as(pyarrow: Any, column: Column) -> Any:
    by_type = {ColumnType.DATE: pyarrow.int32(), ColumnType.TIMESTAMPTZ: pyarrow.int64()}
    return by_type.get(column.type) or _kept_as(pyarrow, column)


def _kept_as(pyarrow: Any, column: Column) -> Any:
    """Exact, or text: a numeric of Postgres may have more digits than any number of Parquet's."""
    by_type = {
        ColumnType.INTEGER: pyarrow.int32(),
        ColumnType.BIGINT: pyarrow.int64(),
        ColumnType.DOUBLE: pyarrow.float64(),
        ColumnType.BOOLEAN: pyarrow.bool_(),
        ColumnType.DATE: pyarrow.date32(),
        ColumnType.TIMESTAMPTZ: pyarrow.timestamp("us", tz="UTC"),
    }
    return by_type.get(column.type) or pyarrow.string()
