from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from app.dataplane import sheet_reader
from app.dataplane.sheet_lines import lines_of
from app.dataplane.sheet_reader import Frame, RefusedError, Wanted, behind, convert
from tests.workbooks import DATE, TIME, number, row, text, workbook

HEADER = row(1, [text("id"), text("name")])


def converted(folder: Path, book: bytes, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    """What was found, and each row of the sheet, ``None`` where a line is blank."""
    path = folder / "book.xlsx"
    path.write_bytes(book)
    wanted = Wanted(str(path), 1, None, 0, fill_merged=False, max_cells=10**8, memory_bytes=0)
    written: list[bytes] = []
    convert(msgspec.structs.replace(wanted, **changes), written.append)
    frames, lines = framed(b"".join(written))
    return msgspec.to_builtins(frames[-1].found), [json.loads(line) if line else None for line in lines.splitlines()]


def framed(data: bytes) -> tuple[list[Frame], bytes]:
    """The frames, and the lines in them."""
    stream, frames, lines = io.BytesIO(data), [], b""
    while head := stream.readline():
        frames.append(msgspec.json.decode(head, type=Frame))
        lines += lines_of(behind(frames[-1], stream.read))
        assert sum(frame.size_bytes for frame in frames) == len(lines)
    assert [frame.size_bytes > 0 for frame in frames] == [True] * (len(frames) - 1) + [False]
    return frames, lines


def test_cells_become_values_of_their_kinds_and_formulas_what_they_came_to(tmp_path: Path) -> None:
    cells = [
        number("7"),
        text("a &lt;b&gt;\n&quot;c&quot;"),
        number("1.5"),
        't="b"><v>1</v>',
        number("45292", style=DATE),
        number("45292.75", style=TIME),
        '><f>3+4</f><v>7</v>',
    ]  # fmt: skip
    names = ["id", "name", "part", "flag", "day", "at", "sum"]

    found, rows = converted(tmp_path, workbook(row(1, list(map(text, names))) + row(2, cells)))

    assert found == {"sheet": "Sheet1", "names": names, "first_row": 2, "width": 7}
    assert rows == [
        {
            "id": 7,
            "name": 'a <b>\n"c"',
            "part": 1.5,
            "flag": True,
            "day": "2024-01-01",
            "at": "2024-01-01T18:00:00",
            "sum": 7,
        }
    ]


def test_a_cell_with_an_error_says_so(tmp_path: Path) -> None:
    book = workbook(HEADER + row(2, [number("1"), 't="e"><f>1/0</f><v>#DIV/0!</v>']) + row(3, [number("2"), text("a")]))

    assert converted(tmp_path, book)[1] == [{"id": 1, "name": "#DIV/0!"}, {"id": 2, "name": "a"}]


def test_a_cell_with_an_error_says_so_in_its_place_when_the_first_column_is_empty(tmp_path: Path) -> None:
    error = 't="e"><f>1/0</f><v>#DIV/0!</v>'
    rows = row(1, ["", text("id"), text("name")]) + row(2, ["", number("1"), error]) + row(3, ["", error, text("a")])

    assert converted(tmp_path, workbook(rows))[1] == [{"id": 1, "name": "#DIV/0!"}, {"id": "#DIV/0!", "name": "a"}]


def test_merged_cells_are_filled_in_their_place_when_the_first_column_is_empty(tmp_path: Path) -> None:
    rows = row(1, ["", text("id"), text("name")]) + row(2, ["", number("1"), text("a")]) + row(3, ["", number("2")])

    _, came = converted(tmp_path, workbook(rows, merged="C2:C3"), fill_merged=True)

    assert came == [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]


def test_lines_are_the_rows_of_the_sheet_with_the_empty_ones_among_them(tmp_path: Path) -> None:
    book = workbook(row(3, ["", text("id"), text("name")]) + row(6, ["", number("1"), text("a")]))

    found, rows = converted(tmp_path, book)

    assert found["first_row"] == 4
    assert found["names"] == ["id", "name"]
    assert rows == [None, None, {"id": 1, "name": "a"}]


@pytest.mark.parametrize(
    ("changes", "names", "rows"),
    [
        ({"skip_rows": 1}, ["1", "a"], []),
        ({"names": ["key", "word", "more"]}, ["key", "word"], [{"key": "id", "word": "name"}, {"key": 1, "word": "a"}]),
        ({"names": ["key"]}, ["key"], [{"key": "id", "column_2": "name"}, {"key": 1, "column_2": "a"}]),
        ({"sheet": "Sheet2"}, ["x"], []),
        ({"sheet": 2}, ["x"], []),
    ],
)
def test_names_rows_and_sheets_are_as_wanted(
    tmp_path: Path, changes: dict[str, Any], names: list[str], rows: list[Any]
) -> None:
    book = workbook(HEADER + row(2, [number("1"), text("a")]), row(1, [text("x")]))

    found, came = converted(tmp_path, book, **changes)

    assert (found["names"], came) == (names, rows)


@pytest.mark.parametrize(("fill", "second"), [(False, {"id": 2}), (True, {"id": 2, "name": "a"})])
def test_merged_cells_have_their_value_in_the_first_or_in_all(
    tmp_path: Path, fill: bool, second: dict[str, Any]
) -> None:
    rows = HEADER + row(2, [number("1"), text("a")]) + row(3, [number("2")]) + row(4, [number("3")])

    _, came = converted(tmp_path, workbook(rows, merged="B2:B3"), fill_merged=fill)

    assert came == [{"id": 1, "name": "a"}, second, {"id": 3}]


@pytest.mark.parametrize(
    ("book", "changes", "code"),
    [
        (workbook(HEADER), {"sheet": "Sheet9"}, "xlsx.no_sheet"),
        (workbook(HEADER), {"sheet": 2}, "xlsx.no_sheet"),
        (workbook(""), {}, "csv.empty"),
        (workbook(HEADER)[:-40], {}, "source.corrupt"),
        (workbook(HEADER + row(1_048_577, [number("1")])), {}, "xlsx.too_many_rows"),
        (workbook(HEADER + row(1_000, [number("1")])), {"max_cells": 1_999}, "xlsx.too_large"),
    ],
)
def test_a_workbook_that_cannot_be_read_is_refused_with_its_reason(
    tmp_path: Path, book: bytes, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(RefusedError) as raised:
        converted(tmp_path, book, **changes)

    assert raised.value.args[0] == code


def test_lines_that_wait_for_the_names_are_written_whole_however_long(tmp_path: Path) -> None:
    rows = [row(at, [number(str(at)), text("x" * (300 * at))]) for at in range(1, 6)]

    with patch.object(sheet_reader, "_BLOCK_BYTES", 100):
        _, came = converted(tmp_path, workbook("".join(rows)), names=["id", "name", "more"])

    assert [len(one["name"]) for one in came] == [300, 600, 900, 1_200, 1_500]
