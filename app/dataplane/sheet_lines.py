"""Rows of a plain sheet as lines of NDJSON, a block of them at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import msgspec

from app.dataplane.plain_sheet import Rows
from app.dataplane.sheet_parts import NotPlainError


class Lines:
    """Writes a line for each row behind the one with the names; a row without a value is a blank line.

    Args:
        names: Of the columns; ``None``: the first row that is not empty has them.
        skip_rows: Rows that are left out.
    """

    def __init__(self, names: list[str] | None, skip_rows: int, write: Callable[[bytes], Any]) -> None:
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
            place = next((at for at in range(len(rows.numbers)) if any(one.values[at] for one in rows.columns)), None)
            if place is None:
                return
            if rows.has_dates(place):
                raise NotPlainError("a name that is a date")
            self.names = [_name(column, place) for column in rows.columns]
            self._next = self.first_row = rows.numbers[place] + 1
            rows = rows.from_place(place + 1)
        if rows.numbers:
            self._put(rows, self._joined(rows))

    def _put(self, rows: Rows, text: bytes) -> None:
        """Write lines, blank ones between them where rows are missing; those in the end wait for what follows."""
        numbers = rows.numbers
        if numbers[-1] - self._next == len(numbers) - 1 and not text.endswith(b"\n\n") and text != b"\n":
            self._write(text)
            self._next = numbers[-1] + 1
            return
        for place, (number, line) in enumerate(zip(numbers, text.split(b"\n")[:-1], strict=True)):
            if line or rows.has_cells(place):
                self._write(b"\n" * (number - self._next) + line + b"\n")
                self._next = number + 1

    def _joined(self, rows: Rows) -> bytes:
        count = len(rows.numbers)
        keys = [_key(self.names or [], place) for place in range(len(rows.columns))]
        if len(set(keys)) < len(keys):
            raise NotPlainError("names that are the same")
        pieces: list[list[bytes]] = []
        frame, comma = b"{", b""
        leads = bool(rows.columns) and b"" not in rows.columns[0].values
        for key, column in zip(keys, rows.columns, strict=True):
            opening, quote = comma + key + b":", b'"' if column.is_text else b""
            if b"" in column.values:
                opening = b"," + key + b":" + quote
                values = [b"%b%b%b" % (opening, value, quote) if value else b"" for value in column.values]
                pieces += [[frame] * count, values]
                frame = b""
            else:
                pieces += [[frame + opening + quote] * count, column.values]
                frame = quote
            comma = b","
        pieces.append([frame + b"}\n"] * count)
        flat = [b""] * (len(pieces) * count)
        for place, piece in enumerate(pieces):
            flat[place :: len(pieces)] = piece
        text = b"".join(flat)
        if leads:
            return text
        # No value holds a line end of its own, or a quote that is not spelled otherwise.
        return (b"\n" + text).replace(b"\n{,", b"\n{").replace(b"\n{}", b"\n")[1:]


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


def _key(names: list[str], place: int) -> bytes:
    return msgspec.json.encode(key_of(names, place))
