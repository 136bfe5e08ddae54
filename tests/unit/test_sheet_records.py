"""Records of a sheet in columns, beside the same read from its lines."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataplane import plain_sheet, sheet_cells, sheet_reader
from app.dataplane.chunks import Chunk
from app.dataplane.json_records import LineReader
from app.dataplane.json_values import Shape
from app.dataplane.sheet_lines import Block, lines_of
from app.dataplane.sheet_records import SheetReader
from tests.unit.test_plain_sheet import book_of, sheets, wanted_of
from tests.workbooks import number, row, text


def blocks_of(rows: str) -> tuple[list[str], list[bytes | Block]]:
    """The names of a sheet's columns, and its lines as they come."""
    blocks: list[bytes | Block] = []
    with wanted_of(book_of(rows)) as wanted:
        found = sheet_reader.read(wanted, lambda some, *_: blocks.append(some))
    return found.names, blocks


def told(chunks: Iterable[Chunk]) -> list[tuple[Any, ...]]:
    """All there is to know of each record."""
    records = []
    for chunk in chunks:
        good = dict(zip(chunk.members, zip(*chunk.columns, strict=True), strict=True))
        assert not chunk.plain or b"\\" not in b"".join(map(b"".join, chunk.columns))
        records += [
            (
                chunk.line_of(place),
                chunk.byte_of(place),
                chunk.byte_of(place + 1),
                chunk.raw(place),
                good.get(place),
                chunk.faults.get(place),
                place in chunk.blanks,
            )
            for place in range(chunk.count)
        ]
    return records


def in_turn(blocks: list[bytes | Block]) -> Callable[[], bytes | Block]:
    left = iter(blocks)
    return lambda: next(left, b"")


@given(sheets(), st.booleans(), st.booleans(), st.sampled_from([30, 1_000_000]), st.integers(0, 2))
def test_records_in_columns_are_those_of_the_lines(
    rows: str, ignores: bool, keeps_null: bool, most: int, left_out: int
) -> None:
    with patch.object(plain_sheet, "_BLOCK_BYTES", 300), patch.object(sheet_cells, "_BLOCK_BYTES", 100):
        try:
            names, blocks = blocks_of(rows)
        except BaseException as error:
            if type(error).__name__ not in ("RefusedError", "OverflowError", "PanicException"):
                raise
            return
    shape = Shape(tuple(dict.fromkeys(names[left_out:])) or ("a",), ignores, most, keeps_null=keeps_null)
    lines = io.BytesIO(b"".join(map(lines_of, blocks)))

    by_line = LineReader(lines.read, shape, first_byte=7, first_line=3)
    by_block = SheetReader(in_turn(blocks), shape, first_byte=7, first_line=3)

    assert told(by_block.chunks(0)) == told(by_line.chunks(0))
    assert (by_block.next_byte, by_block.next_line) == (by_line.next_byte, by_line.next_line)


VALUES = [
    *map(number, ["1", "-7.25", "1e400", "12345678901234567890", "45292"]),
    number("45292", style=1),
    *(text(value) for value in ("plain", 'say "hi"', "back\\slash", "null", "a\tb", "é", "_x000D_", "1")),
    't="b"><v>1</v>',
    't="e"><v>#N/A</v>',
]


@pytest.mark.parametrize("keeps_null", [False, True])
def test_columns_of_many_kinds_are_read_without_their_lines(keeps_null: bool) -> None:
    header = row(1, [text("id"), *(text(f"c{place}") for place in range(len(VALUES)))])
    cells = [row(at, [number(str(at)), *(VALUES if at % 2 else [""] * len(VALUES))]) for at in range(2, 9)]
    names, blocks = blocks_of(header + "".join(cells))
    shape = Shape(tuple(names), ignore_unknown=False, max_field_bytes=1_000_000, keeps_null=keeps_null)

    with patch.object(Block, "lines", side_effect=AssertionError):
        chunks = list(SheetReader(in_turn(blocks), shape, first_byte=0, first_line=2).chunks(0))

    lines = io.BytesIO(b"".join(map(lines_of, blocks)))
    assert told(chunks) == told(LineReader(lines.read, shape, first_byte=0, first_line=2).chunks(0))
