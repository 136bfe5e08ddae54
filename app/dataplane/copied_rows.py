"""What COPY writes in its text format: whole rows, whose cells are told apart without a look at each byte."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.domain.tables import Column, ColumnType

OPTIONS: Final = r"FORMAT text, DELIMITER E'\x02', NULL E'\x08'"
"""Of the COPY. It spells line ends and backspaces in values with a backslash, so bare ones are its own."""
DELIMITER: Final = b"\x02"
NULL: Final = b"\x08"
_SPELLED_BY_COPY: Final = b"\b\t\n\v\f\r" + DELIMITER
_LEFT_BY_COPY: Final = tuple(code for code in range(1, 0x20) if code not in _SPELLED_BY_COPY)
_ROWS_BYTES: Final = 2**17
"""What is worked on at once; more does not fit the processor's caches, which costs a quarter."""


class WholeRows(io.RawIOBase):
    """Takes what COPY writes, as it comes, and hands on what ``spelled`` makes of it, some whole rows at a time.

    Args:
        rows_bytes: At most so many, unless a row is longer.
    """

    def __init__(self, spelled: Callable[[bytes], bytes], out: io.RawIOBase, *, rows_bytes: int = _ROWS_BYTES) -> None:
        super().__init__()
        self._rows_bytes = rows_bytes
        self._spelled = spelled
        self._out = out
        self._held: list[bytes] = []

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Hand on the rows that end in ``block``; hold what is behind them."""
        data = bytes(block)
        start = 0
        while end := data.rfind(b"\n", start, start + self._rows_bytes) + 1 or data.find(b"\n", start) + 1:
            self._out.write(self._spelled(b"".join((*self._held, data[start:end]))))
            self._held.clear()
            start = end
        self._held.append(data[start:])
        return len(data)


def holds_controls(rows: bytes) -> bool:
    """Whether a value holds a control character that COPY has no letter for, a vertical tab, or the delimiter."""
    return any(map(rows.__contains__, _LEFT_BY_COPY)) or (
        b"\\" in rows and (b"\\" + DELIMITER in rows or rb"\v" in rows)
    )


def cells_of(rows: bytes) -> list[bytes]:
    """The cells of whole rows, row after row; no value may hold the delimiter any more."""
    return rows[:-1].replace(b"\n", DELIMITER).split(DELIMITER)


def changed_cells(
    rows: bytes, columns: Sequence[Column], changes: Mapping[ColumnType, Callable[[bytes], bytes]]
) -> list[bytes]:
    """The cells of whole rows after ``changes`` of those of some types.

    Args:
        changes: Each gets all cells of a column at once, with the delimiter between.
    """
    cells = cells_of(rows)
    for place, column in enumerate(columns):
        if column.type in changes:
            those = slice(place, None, len(columns))
            cells[those] = changes[column.type](DELIMITER.join(cells[those])).split(DELIMITER)
    return cells


class Frame:
    """What stands around the cells of a row.

    Args:
        openings: Before each cell, ``closings`` behind it. Before and behind a NULL the last byte of the opening and
            the first ``closing_bytes`` of the closing are left out.
        begin: Before each row, ``end`` behind it.
        null: Is written instead of NULL.
        spare: A byte that is left out everywhere, to make closings equally long.
    """

    def __init__(
        self,
        openings: list[bytes],
        closings: list[bytes],
        *,
        begin: bytes,
        between: bytes,
        end: bytes,
        null: bytes,
        spare: bytes,
        closing_bytes: int = 1,
    ) -> None:
        self.columns = len(openings)
        self._begin = begin + openings[0]
        self._end = closings[-1] + end
        inner = [before + between + behind for before, behind in zip(closings, openings[1:], strict=False)]
        self._between = [*inner, self._end + self._begin]
        self._null = null
        self._spare = spare
        self._closing_bytes = closing_bytes

    def around(self, cells: list[bytes]) -> bytes:
        """The rows that ``cells`` make."""
        pieces = [self._spare * self._closing_bytes + self._begin] * (2 * len(cells) + 1)
        pieces[1::2] = cells
        pieces[2::2] = self._between * (len(cells) // self.columns)
        pieces[-1] = self._end + self._spare
        skipped = self._closing_bytes
        parts = b"".join(pieces).split(NULL)
        return self._null.join([part[skipped:-1] for part in parts]).replace(self._spare, b"")
