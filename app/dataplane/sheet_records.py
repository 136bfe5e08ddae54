"""Records of a sheet: as those of its lines, but without the lines where nobody asks for them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from app.dataplane.chunks import NULL, Chunk
from app.dataplane.json_records import LineReader
from app.dataplane.json_values import Literal, Shape, encoded, is_plain
from app.dataplane.sheet_cells import Column
from app.dataplane.sheet_lines import Block, lines_of

_DECODE: Final = msgspec.json.Decoder(list[Any], float_hook=Literal).decode


class _Columns(Chunk):
    """A chunk whose lines are spelled out when they are first asked for."""

    block: Block

    def byte_of(self, place: int) -> int:
        """Where a record begins in the file."""
        if 0 < place < self.count:
            self._spell()
        return super().byte_of(place)

    def raw(self, place: int) -> bytes:
        """A record's line."""
        self._spell()
        return super().raw(place)

    def _spell(self) -> None:
        if not self.data:
            self.data = self.block.lines()


class SheetReader:
    """Reads a sheet from the first byte of a line; what ``LineReader`` finds in its lines.

    Args:
        next_block: The next lines; nothing at the end.
    """

    def __init__(
        self, next_block: Callable[[], bytes | Block], shape: Shape, *, first_byte: int, first_line: int
    ) -> None:
        self._next_block = next_block
        self._shape = shape
        self.next_byte = first_byte
        self.next_line = first_line

    def chunks(self, width: int) -> Iterator[Chunk]:
        """The records from here on."""
        while some := self._next_block():
            chunk = self._quickly(some) if isinstance(some, Block) else None
            if chunk is not None:
                self.next_byte += chunk.length
                self.next_line += chunk.lines
                yield chunk
                continue
            lines = io.BytesIO(lines_of(some))
            reader = LineReader(lines.read, self._shape, first_byte=self.next_byte, first_line=self.next_line)
            for chunk in reader.chunks(width):
                self.next_byte, self.next_line = reader.next_byte, reader.next_line
                yield chunk

    def _quickly(self, block: Block) -> Chunk | None:
        """The chunk of a block; ``None`` when it has what its lines alone can tell."""
        names, ignores, size_bytes = self._shape.names, self._shape.ignore_unknown, block.size_bytes
        by_key = dict(block.columns)
        if size_bytes > self._shape.max_field_bytes or not (ignores or by_key.keys() <= set(names)):
            return None
        null = NULL if self._shape.keeps_null else b""
        columns, plain = [], True
        for name in names:
            found = _values(by_key[name]) if name in by_key else ([null] * block.count, True)
            if found is None:
                return None
            column, plain = found[0], plain and found[1]
            columns.append([value or null for value in column] if null and name in by_key else column)
        chunk = _Columns(
            data=b"",
            first_byte=self.next_byte,
            first_line=self.next_line,
            count=block.count,
            columns=columns,
            members=range(block.count),
            faults={},
            blanks=[],
            lines=block.count,
            length=size_bytes,
            plain=plain,
        )
        chunk.block = block
        return chunk


def _values(column: Column) -> tuple[list[bytes], bool] | None:
    """As ``json_values.encoded``."""
    if column.is_text or not (b'"' in column.joined or b"null" in column.joined):
        return column.values(), is_plain(column.joined)
    return encoded(_DECODE(b"[" + b",".join([value or b"null" for value in column.values()]) + b"]"))
