"""Parquet from what Postgres writes as CSV: Arrow reads it, some megabytes at a time, and writes row groups."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from app.dataplane.export import ExportStream
from app.dataplane.vql.compiler import Statement, quoted
from app.domain.errors import JobError
from app.domain.tables import Column, ColumnType

GROUP_BYTES: Final = 16 * 2**20
"""Of CSV that make one row group."""
_CODEC: Final = "zstd"


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


class ParquetFile(io.RawIOBase):
    """What COPY writes CSV into; row groups go on into ``stream``.

    A chunk is cut where a row ends: at a line end with an even number of quotes before it.
    """

    options = "FORMAT csv"

    def __init__(self, stream: ExportStream, columns: Sequence[Column]) -> None:
        super().__init__()
        if not is_there():
            raise JobError("this worker has no pyarrow to write Parquet with", code="export.no_parquet")
        self.rows = 0
        self._columns = columns
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._sink = _Sink(stream)
        self._groups = _Groups(self._sink, columns)

    def statement(self, rows: Statement) -> Statement:
        """The SELECT to be copied for ``rows``."""
        return Statement(select_values(rows.sql, self._columns), rows.parameters)

    @property
    def into(self) -> io.RawIOBase:
        """Itself."""
        return self

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Take rows; those of 16 MiB make a group."""
        data = bytes(block)
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= GROUP_BYTES:
            self._cut()
        return len(data)

    def finish(self) -> None:
        """Write the last group and the footer."""
        self._write(b"".join(self._pieces))
        self._pieces = []
        self._groups.finish()

    def drop(self) -> None:
        """Let nothing more reach the stream; Arrow writes a footer even when it is let go."""
        self._sink.is_open = False
        self._groups.drop()

    def _cut(self) -> None:
        data = b"".join(self._pieces)
        end = data.rfind(b"\n")
        quotes = data.count(b'"', 0, max(0, end))
        while end >= 0 and quotes % 2:
            before = data.rfind(b"\n", 0, end)
            quotes -= data.count(b'"', max(0, before), end)
            end = before
        self._write(data[: end + 1])
        self._pieces = [data[end + 1 :]]
        self._held_bytes = len(data) - end - 1

    def _write(self, rows: bytes) -> None:
        if rows:
            self.rows += self._groups.write(rows)


class _Groups:
    """The row groups of one file."""

    def __init__(self, sink: Any, columns: Sequence[Column]) -> None:
        import pyarrow
        from pyarrow import csv, parquet

        self._columns = columns
        read = {column.name: _read_as(pyarrow, column) for column in columns}
        self._schema = pyarrow.schema([(column.name, _kept_as(pyarrow, column)) for column in columns])
        self._csv = csv
        self._parse = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
        self._convert = csv.ConvertOptions(
            column_types=read,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        )
        # Made at the first group: it writes at once, and nothing is to be written before the stream is heard.
        self._begin = partial(parquet.ParquetWriter, sink, self._schema, compression=_CODEC)
        self._writer: Any = None

    def write(self, rows: bytes) -> int:
        """Write a group; how many rows it has."""
        # A block that is the whole: a row that straddles two would be refused.
        how = self._csv.ReadOptions(column_names=[column.name for column in self._columns], block_size=len(rows) + 1)
        found = self._csv.read_csv(
            io.BytesIO(rows), read_options=how, parse_options=self._parse, convert_options=self._convert
        )
        self._begun().write_table(found.cast(self._schema), row_group_size=max(1, found.num_rows))
        return int(found.num_rows)

    def finish(self) -> None:
        """Write the footer, of a file without rows too."""
        self._begun().close()

    def drop(self) -> None:
        """Let go of it; safe after ``finish``."""
        if self._writer is not None:
            self._writer.close()

    def _begun(self) -> Any:
        self._writer = self._writer or self._begin()
        return self._writer


class _Sink:
    """What Arrow writes into."""

    closed = False
    mode = "wb"

    def __init__(self, stream: ExportStream) -> None:
        self.is_open = True
        self._stream = stream
        self._written = 0

    def write(self, data: Any, /) -> int:
        block = bytes(data)
        self._written += len(block)
        if self.is_open:
            self._stream.write(block)
        return len(block)

    def tell(self) -> int:
        return self._written

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The stream is finished by who began it."""


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
