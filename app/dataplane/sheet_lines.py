"""Rows of a plain sheet as lines of NDJSON: a block of them at once, and spelled out only where that is needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.dataplane.plain_sheet import Rows
from app.dataplane.sheet_cells import NUL, Column
from app.dataplane.sheet_parts import NotPlainError


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines that follow each other, in columns.

    Args:
        columns: By their keys, in the order of these in a line.
    """

    count: int
    columns: list[tuple[str, Column]]

    def lines(self) -> bytes:
        """The lines; one without a value is blank."""
        pieces: list[list[bytes]] = []
        frame, comma = b"{", b""
        leads = bool(self.columns) and _is_full(self.columns[0][1])
        for key, column in self.columns:
            values = column.spelled().split(NUL)
            opening, quote = comma + _encoded(key) + b":", b'"' if column.is_text else b""
            if not _is_full(column):
                opening = b"," + _encoded(key) + b":" + quote
                values = [b"%b%b%b" % (opening, value, quote) if value else b"" for value in values]
                pieces += [[frame] * self.count, values]
                frame = b""
            else:
                pieces += [[frame + opening + quote] * self.count, values]
                frame = quote
            comma = b","
        pieces.append([frame + b"}\n"] * self.count)
        flat = [b""] * (len(pieces) * self.count)
        for place, piece in enumerate(pieces):
            flat[place :: len(pieces)] = piece
        text = b"".join(flat)
        if leads:
            return text
        # No value holds a line end of its own, or a quote that is not spelled otherwise.
        return (b"\n" + text).replace(b"\n{,", b"\n{").replace(b"\n{}", b"\n")[1:]

    @property
    def size_bytes(self) -> int:
        """The length of the lines, none of which may be blank."""
        size = self.count * len(b"{\n")
        for key, column in self.columns:
            empty = 0 if _is_full(column) else column.values().count(b"")
            around = len(_encoded(key)) + len(b":,") + (len(b'""') if column.is_text else 0)
            size += (self.count - empty) * around + column.spelled_bytes() - (self.count - 1)
        return size


def lines_of(some: bytes | Block) -> bytes:
    """The lines, if they are not spelled out yet."""
    return some.lines() if isinstance(some, Block) else some


def _is_full(column: Column) -> bool:
    """Whether no value is empty."""
    joined = column.joined
    return NUL + NUL not in joined and not joined.startswith(NUL) and not joined.endswith(NUL) and joined != b""


class Lines:
    """Writes a line for each row behind the one with the names; a row without a value is a blank line.

    Args:
        names: Of the columns; ``None``: the first row that is not empty has them.
        skip_rows: Rows that are left out.
    """

    def __init__(self, names: list[str] | None, skip_rows: int, write: Callable[[bytes | Block], Any]) -> None:
        self.names = names
        self.first_row = skip_rows + 1
        self._skip = skip_rows
        self._write = write
        self._next = self.first_row

    def add(self, rows: Rows) -> None:
        """Write the lines of the next rows.

        Raises:
            NotPlainError: The names are no texts, or the same.
        """
        rows = rows.from_place(bisect_right(rows.numbers, self._skip))
        if self.names is None:
            columns = [column.values() for column in rows.columns]
            place = next((at for at in range(len(rows.numbers)) if any(values[at] for values in columns)), None)
            if place is None:
                return
            if rows.has_dates(place):
                raise NotPlainError("a name that is a date")
            self.names = [_name(column, place) for column in rows.columns]
            self._next = self.first_row = rows.numbers[place] + 1
            rows = rows.from_place(place + 1)
        if rows.numbers:
            self._put(rows, self._block(rows))

    def _put(self, rows: Rows, block: Block) -> None:
        """Write lines, blank ones between them where rows are missing; those in the end wait for what follows."""
        numbers = rows.numbers
        if numbers[-1] - self._next == len(numbers) - 1 and any(_is_full(column) for _, column in block.columns):
            self._write(block)
            self._next = numbers[-1] + 1
            return
        pieces = []
        for place, (number, line) in enumerate(zip(numbers, block.lines().split(b"\n")[:-1], strict=True)):
            if line or rows.has_cells(place):
                pieces.append(b"\n" * (number - self._next) + line + b"\n")
                self._next = number + 1
        if pieces:
            self._write(b"".join(pieces))

    def _block(self, rows: Rows) -> Block:
        keys = [key_of(self.names or [], place) for place in range(len(rows.columns))]
        if len(set(keys)) < len(keys):
            raise NotPlainError("names that are the same")
        nothing = NUL * (len(rows.numbers) - 1)
        columns = [(key, column) for key, column in zip(keys, rows.columns, strict=True) if column.joined != nothing]
        return Block(len(rows.numbers), columns)


def name_of(cell: Any) -> str:
    """The name of a column whose cell of the row with the names is this."""
    return (str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)).strip()


def key_of(names: list[str], place: int) -> str:
    """What a value of a column goes by."""
    return (names[place] if place < len(names) else "") or f"column_{place + 1}"


def _name(column: Any, place: int) -> str:
    literal = column.literals()[place]
    if literal == b"null":
        raise NotPlainError("a name that is an infinite number")
    return name_of(msgspec.json.decode(literal)) if literal else ""


def _encoded(key: str) -> bytes:
    return msgspec.json.encode(key)
