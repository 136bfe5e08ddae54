"""What becomes of rows as COPY writes them: lines of JSON, and XML rows of a worksheet."""

from __future__ import annotations

import io
import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.dataplane.copied_rows import WholeRows
from app.dataplane.json_rows import JsonLines
from app.dataplane.sheet_rows import SheetRows, header_row
from app.domain.errors import JobError
from app.domain.tables import Column, ColumnType

COLUMNS = (
    Column("name", ColumnType.TEXT),
    Column("number", ColumnType.BIGINT),
    Column("good", ColumnType.BOOLEAN),
    Column("note", ColumnType.TEXT),
    Column("facts", ColumnType.JSON),
)
# Whatever Postgres can store: anything but U+0000 and halves of surrogate pairs.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ODD_TEXT = st.sampled_from(
    [
        "",
        "null",
        r"\N",
        '"',
        r"\"",
        "\\",
        "\b",
        "\x02",
        "\x03\x06",
        "\v",
        "\\v",
        ":\b",
        "_x0041_x0042_",
        "&<>",
        "\uffff",
    ]
)
TEXT = st.one_of(st.none(), ANY_TEXT, ODD_TEXT)
ROWS = st.lists(
    st.tuples(
        TEXT,
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.booleans()),
        TEXT,
        st.one_of(st.none(), st.recursive(TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=3)),
    ),
    max_size=6,
)
_LETTERS = str.maketrans(
    {**{letter: f"\\{name}" for letter, name in zip("\b\t\n\v\f\r\\", r"btnvfr" + "\\", strict=True)}, "\x02": "\\\x02"}
)


def copied(rows: list[tuple[Any, ...]]) -> bytes:
    """Rows as COPY writes them with our options."""
    return b"".join("\x02".join(map(_cell, row)).encode() + b"\n" for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "\b"
    if isinstance(value, bool):
        return "t" if value else "f"
    written = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
    return written.translate(_LETTERS)


class Kept(io.RawIOBase):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def writable(self) -> bool:
        return True

    def write(self, block: Any, /) -> int:
        self.body += bytes(block)
        return len(block)


def written(spelled: Any, data: bytes, block: int) -> bytes:
    """What is made of ``data`` that comes in blocks of so many bytes."""
    kept = Kept()
    rows = WholeRows(spelled, kept)
    for start in range(0, len(data), block):
        rows.write(data[start : start + block])
    return kept.body


def in_json(row: tuple[Any, ...]) -> str:
    values = dict(zip((column.name for column in COLUMNS), row, strict=True))
    facts = json.dumps(values.pop("facts"), ensure_ascii=False)
    begin = json.dumps(values, ensure_ascii=False, separators=(",", ":"))[:-1]
    return f'{begin},"facts":{facts}}}\n'


@given(ROWS, st.integers(1, 60))
@example([(None, None, None, None, None), ("\x02", 1, True, r"\N", [r"\N", '"\\']), ("a\nb", 0, False, "\v\t", [])], 7)
def test_lines_of_json_are_those_of_any_writer_of_json(rows: list[tuple[Any, ...]], block: int) -> None:
    rows = [(*row[:4], row[4] if isinstance(row[4], list) else None) for row in rows]

    lines = written(JsonLines(COLUMNS).spelled, copied(rows), block)

    assert lines.decode() == "".join(map(in_json, rows))


@given(ROWS, st.integers(1, 60))
@example(
    [(None, 10**15, None, "_x0041_x0042_", None), ("\x02", 1, True, r"\N", ["&"]), ("a\nb", 0, False, "\v", [])], 7
)
def test_rows_of_a_worksheet_hold_what_was_written(rows: list[tuple[Any, ...]], block: int) -> None:
    xml = written(SheetRows(COLUMNS).spelled, copied(rows), block)

    root = ElementTree.fromstring(b"<sheet>" + xml + b"</sheet>")
    assert [[shown(cell) for cell in row] for row in root] == [[kept(value) for value in row] for row in rows]


def shown(cell: ElementTree.Element) -> tuple[str, str] | None:
    """Type and content of a cell."""
    if not len(cell):
        return None
    body = re.sub("_x([0-9A-F]{4})_", lambda code: chr(int(code[1], 16)), "".join(cell.itertext()))
    return cell.get("t", "n"), body


def kept(value: Any) -> tuple[str, str] | None:
    """What a cell has of a value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "b", str(int(value))
    if isinstance(value, int):
        return "n" if len(str(value)) <= 15 else "inlineStr", str(value)
    return "inlineStr", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        (ColumnType.DOUBLE, "1.2345678901234567e+300", b"<c><v>1.2345678901234567e+300</v></c>"),
        (ColumnType.DOUBLE, "-Infinity", b'<c t="inlineStr"><is><t xml:space="preserve">-Infinity</t></is></c>'),
        (
            ColumnType.NUMERIC,
            "12345678901234.5",
            b'<c t="inlineStr"><is><t xml:space="preserve">12345678901234.5</t></is></c>',
        ),
        (ColumnType.NUMERIC, "NaN", b'<c t="inlineStr"><is><t xml:space="preserve">NaN</t></is></c>'),
        (ColumnType.INTEGER, "-2147483648", b"<c><v>-2147483648</v></c>"),
    ],
)
def test_a_number_that_a_spreadsheet_would_change_is_a_text(kind: ColumnType, value: str, cell: bytes) -> None:
    rows = SheetRows([Column("a", kind)])

    xml = rows.spelled(f"1\n{value}\n2\n".encode())

    assert xml == b"<row><c><v>1</v></c></row>\n<row>" + cell + b"</row>\n<row><c><v>2</v></c></row>\n"


def test_names_in_a_header_are_texts() -> None:
    assert header_row(["a_x0041_"]) == (
        b'<row><c t="inlineStr"><is><t xml:space="preserve">a_x005F_x0041_</t></is></c></row>\n'
    )


@pytest.mark.parametrize("long", ["x" * 32_767, "😀" * 16_383, "\n" * 32_767, "\x02" * 32_767])
def test_a_cell_takes_as_much_as_excel_takes(long: str) -> None:
    rows = SheetRows(COLUMNS[:2])

    full = rows.spelled(copied([("", 1), (long, 1)]))

    assert full.count(b"<row>") == 2
    with pytest.raises(JobError, match="'name'") as caught:
        rows.spelled(copied([("", 1), (long + "😀", 1)]))
    assert caught.value.code == "export.cell_too_long"
