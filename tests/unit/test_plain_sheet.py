"""Sheets by blocks, beside the same by calamine."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from unittest.mock import patch
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataplane import plain_sheet, sheet_cells, sheet_reader
from app.dataplane.sheet_lines import Block, lines_of
from app.dataplane.sheet_parts import NotPlainError, Parts
from app.dataplane.sheet_reader import Found, Put, RefusedError, Wanted
from app.dataplane.sheet_rows import SheetRows, header_row
from app.domain.tables import Column, ColumnType
from tests.workbooks import NAMESPACE, number, row, text, workbook

STYLES = (
    f'<styleSheet xmlns="{NAMESPACE}"><numFmts count="5"><numFmt numFmtId="164" formatCode="0.00%"/>'
    '<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm"/><numFmt numFmtId="166" formatCode="[h]:mm:ss"/>'
    '<numFmt numFmtId="167" formatCode="&quot;day&quot; 0"/><numFmt numFmtId="168" formatCode="[$-409]d\\-mmm;@"/>'
    '</numFmts><cellXfs count="9"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/><xf numFmtId="164"/>'
    '<xf numFmtId="165"/><xf numFmtId="166"/><xf numFmtId="167"/><xf numFmtId="168"/><xf numFmtId="9"/></cellXfs>'
    "</styleSheet>"
)
ITEMS = [
    "<si><t>one</t></si>",
    '<si><t xml:space="preserve"> two </t></si>',
    "<si><t> three </t></si>",
    "<si><t>R&amp;D &lt;x&gt; &quot;q&quot; \\ é\n\t😀</t></si>",
    '<si><r><t>ri</t></r><r><rPr><b/></rPr><t xml:space="preserve">ch </t></r></si>',
    "<si><t>a_x000D_b_x0041_ &#65;</t></si>",
    "<si><t/></si>",
    "<si><t></t></si>",
    '<si><t>kanji</t><rPh sb="0" eb="1"><t>ph</t></rPh></si>',
    "<si><t>a\r\nb</t></si>",
]
TEXTS = st.text(alphabet="ab é\u00a0\n\t\"\\'<>&_x04😀,{}\x7f", max_size=12)
NUMBERS = (
    st.integers(-(10**17), 10**17).map(str)
    | st.integers(-50, 60_000).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(-100_000, 100_000, places=4).map(str)
    | st.sampled_from(["0", "-0", "007", "1.50", "1E3", "1e-7", "0.0001", "+5", " 5 ", "1e400", "x", "45292.999999999"])
)  # fmt: skip
FORMULAS = st.sampled_from(
    ["", "", "<f>A1&amp;B1</f>", '<f t="shared" si="0"/>', '<f t="shared" ref="A1:A9" si="0">1+1</f>']
)
STYLE = st.integers(0, 8).map(lambda style: f' s="{style}"') | st.just("")


@st.composite
def cells(draw: st.DrawFn) -> str:
    """A cell behind its place, with its end."""
    style, formula = draw(STYLE), draw(FORMULAS)
    match draw(st.sampled_from("nnnNsssiiipteb0vd")):
        case "n":
            return f"{style}>{formula}<v>{draw(NUMBERS)}</v></c>"
        case "N":
            return f'{style} t="n"><v>{draw(NUMBERS)}</v></c>'
        case "s":
            return f'{style} t="s"><v>{draw(st.integers(0, len(ITEMS) - 1))}</v></c>'
        case "i":
            return f'{style} t="inlineStr"><is><t>{escape(draw(TEXTS))}</t></is></c>'
        case "p":
            return f' t="inlineStr"{style}><is><t xml:space="preserve">{escape(draw(TEXTS))}</t></is></c>'
        case "t":
            return f'{style} t="str">{formula}<v>{escape(draw(TEXTS))}</v></c>'
        case "e":
            return f'{style} t="e">{formula}<v>{draw(st.sampled_from(["#DIV/0!", "#N/A", "#REF!"]))}</v></c>'
        case "b":
            return f'{style} t="b">{formula}<v>{draw(st.sampled_from("01"))}</v></c>'
        case "0":
            return style + draw(
                st.sampled_from(
                    ["/>", " />", ' t="inlineStr" />', ' t="n"/>', "></c>", "><v></v></c>", f">{formula}<v></v></c>"]
                )
            )
        case "v":
            return style + draw(st.sampled_from(["><f>A1</f></c>", "><f>A1</f><v/></c>", "><f>A1+B1</f><v /></c>"]))
        case _:
            return draw(
                st.sampled_from(
                    [
                        ' t="d"><v>2024-01-02</v></c>',
                        ' t="inlineStr"><is><t/></is></c>',
                        ' t="inlineStr"><is><r><t>a</t></r><r><t>b</t></r></is></c>',
                        ' t="inlineStr"><is><t><![CDATA[</row>]]></t></is></c>',
                        ' t="s"><v>99</v></c>',
                        ' cm="1"><v>1</v></c>',
                        ' t="b"><v>true</v></c>',
                        ' t="str"><v></v></c>',
                        "><v/></c>",
                        ' t="str"><f>A1</f></c>',
                        ' t="e"><v>#SPILL!</v></c>',
                    ]
                )
            )


@st.composite
def sheets(draw: st.DrawFn) -> str:
    """The rows of a sheet whose columns hold cells of a few kinds each."""
    width = draw(st.integers(1, 4))
    kinds = [draw(st.lists(cells(), min_size=1, max_size=4)) for _ in range(width)]
    number, rows = 0, draw(st.sampled_from(["", "", "\n"]))
    for _ in range(draw(st.integers(1, 12))):
        number += draw(st.sampled_from([1, 1, 1, 1, 3]))
        inner = "".join(
            f'<c r="{ascii_uppercase[place]}{number}"' + draw(st.sampled_from(kinds[place]))
            for place in range(width)
            if draw(st.sampled_from([True] * 5 + [False]))
        )
        spans = draw(st.sampled_from(["", ' spans="1:4"', ' ht="12.5" hidden="true"']))
        rows += f'<row r="{number}"{spans}>{inner}</row>' if inner else f'<row r="{number}"{spans}/>'
        rows += draw(st.sampled_from(["", "", "\n "]))
    return rows


def told(read: Callable[[Wanted, Put], Found], wanted: Wanted) -> tuple[Any, bytes]:
    """What was found, or why it was refused, and the lines."""
    lines: list[bytes] = []

    def put(some: bytes | Block, so_far: Found, part: float) -> None:
        lines.append(lines_of(some))
        assert lines[-1].endswith(b"\n")
        assert not isinstance(some, Block) or some.size_bytes == len(lines[-1])
        assert 0 < part <= 1
        heads.append((so_far.names, so_far.first_row))

    heads: list[Any] = []
    try:
        found = read(wanted, put)
    except RefusedError as error:
        return error.args, b""
    except BaseException as error:
        if type(error).__name__ not in ("OverflowError", "PanicException"):  # calamine's, at dates of the year 300,000
            raise
        return type(error), b""
    if wanted.names is None:
        assert all(head == (found.names, found.first_row) for head in heads)
    return found, b"".join(lines)


by_blocks = sheet_reader.read
by_calamine = sheet_reader._by_calamine


@contextmanager
def wanted_of(book: bytes, names: list[str] | None = None, skip_rows: int = 0) -> Iterator[Wanted]:
    with tempfile.NamedTemporaryFile(suffix=".xlsx") as file:
        Path(file.name).write_bytes(book)
        yield Wanted(file.name, 1, names, skip_rows, fill_merged=False, max_cells=10**6, memory_bytes=0)


def book_of(rows: str, *, epoch_1904: bool = False) -> bytes:
    items = f'<?xml version="1.0" encoding="UTF-8"?>\n<sst xmlns="{NAMESPACE}" count="9">{"".join(ITEMS)}</sst>'
    return workbook(rows, extra={"xl/sharedStrings.xml": items.encode()}, styles=STYLES, epoch_1904=epoch_1904)


def letters(place: int) -> str:
    return plain_sheet.letters_of(place).decode()


def with_member(book: bytes, name: str, data: bytes) -> bytes:
    """The workbook with another part of this name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, data if member == name else old.read(member))
    return packed.getvalue()


@given(sheets(), st.sampled_from([None, None, ["a", "b"], ["a", "", "c", "d", "e"]]), st.integers(0, 3), st.booleans())
def test_a_sheet_is_the_same_by_blocks_as_by_calamine(
    rows: str, names: list[str] | None, skip_rows: int, epoch_1904: bool
) -> None:
    book = book_of(rows, epoch_1904=epoch_1904)
    with (
        patch.object(plain_sheet, "_BLOCK_BYTES", 300),
        patch.object(sheet_cells, "_BLOCK_BYTES", 100),
        wanted_of(book, names, skip_rows) as wanted,
    ):
        assert told(by_blocks, wanted) == told(by_calamine, wanted)


@given(sheets(), st.booleans())
def test_a_sheet_whose_cells_say_no_place_is_the_same_by_blocks_as_by_calamine(rows: str, row_numbers: bool) -> None:
    rows = re.sub(r'<c r="[A-Z]+[0-9]+"', "<c", rows)
    rows = rows if row_numbers else re.sub(r"<row [^>/]*>", "<row>", rows)
    with patch.object(plain_sheet, "_BLOCK_BYTES", 300), wanted_of(book_of(rows)) as wanted:
        assert told(by_blocks, wanted) == told(by_calamine, wanted)


def test_what_haulier_exports_is_read_by_blocks_alone() -> None:
    columns = [Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("done", ColumnType.BOOLEAN)]
    cells = (f"{at}{'0' * (at % 20)}\x02{'n & <x> ' * (at % 3)}é\\n_x0041_\x02{'tf'[at % 2]}\n" for at in range(1, 200))
    exported = header_row([column.name for column in columns]) + SheetRows(columns).spelled("".join(cells).encode())
    with (
        patch.object(plain_sheet, "_BLOCK_BYTES", 3_000),
        wanted_of(book_of("\n" + exported.decode())) as wanted,
    ):
        expected = told(by_calamine, wanted)

        found = told(sheet_reader._plainly, wanted)

    assert found == expected
    assert found[1].count(b"\n") == 199


HEADS = {
    "Excel": f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n<worksheet xmlns="{NAMESPACE}" '
    'xmlns:x14ac="http://schemas.microsoft.com/office/spreadsheetml/2009/9/ac"><dimension ref="A1:D3"/><sheetViews>'
    '<sheetView workbookViewId="0"/></sheetViews><cols><col min="1" max="1" width="9"/></cols><sheetData>',
    "openpyxl": f'<worksheet xmlns="{NAMESPACE}"><sheetPr><outlinePr summaryBelow="1"/></sheetPr><sheetData>',
}
ROWS = {
    "Excel": '<row r="1" spans="1:4" x14ac:dyDescent="0.25"><c r="A1" t="s"><v>0</v></c><c r="B1" s="1" t="s">'
    '<v>1</v></c></row><row r="2" spans="1:4"><c r="A2"><v>1.5</v></c><c r="B2" s="1"><v>45292</v></c>'
    '<c r="C2" s="1"/></row>'
    '<row r="4"><c r="A4" t="b"><v>1</v></c><c r="B4" t="e"><f>1/0</f><v>#DIV/0!</v></c>'
    '<c r="D4" t="str"><f t="shared" si="0"/><v>x</v></c></row>',
    "openpyxl": '<row r="1"><c r="A1" t="inlineStr"><is><t>one</t></is></c><c r="B1" t="inlineStr"><is><t> two</t>'
    '</is></c></row><row r="2"><c r="A2" t="n"><v>1.5</v></c><c r="B2" s="2" t="n"><v>45292.5</v></c><c r="C2">'
    '<f>A2</f><v /></c></row><row r="3"><c r="A3" t="inlineStr" />'
    '<c r="D3" t="inlineStr"><is><r><t>x</t></r></is></c></row>',
    "LibreOffice": '<row r="1" customFormat="false" ht="12.8" hidden="false"><c r="A1" s="0" t="s"><v>0</v></c>'
    '<c r="B1" s="0" t="s"><v>3</v></c></row><row r="2" customFormat="false" ht="12.8"><c r="A2" s="0" t="n">'
    '<v>7</v></c><c r="B2" s="0" t="n"><f aca="false">A2+1</f><v>8</v></c></row>',
}  # fmt: skip


@pytest.mark.parametrize("program", ROWS)
def test_what_programs_write_is_read_by_blocks_alone(program: str) -> None:
    head = HEADS.get(program, HEADS["Excel"])
    sheet = f"{head}{ROWS[program]}</sheetData><pageMargins/></worksheet>"
    book = with_member(book_of(""), "xl/worksheets/sheet1.xml", sheet.encode())
    with wanted_of(book) as wanted:
        expected = told(by_calamine, wanted)

        found = told(sheet_reader._plainly, wanted)

    assert found == expected


def test_calamine_goes_on_behind_the_rows_that_were_read_by_blocks() -> None:
    rows = "".join(row(number, [text(f"n{number}"), text("a&amp;b")]) for number in range(1, 100))
    odd = row(101, ['t="d"><v>2024-01-02</v>'])
    with wanted_of(book_of(rows + odd)) as wanted, patch.object(plain_sheet, "_BLOCK_BYTES", 1_000):
        written: list[bytes] = []
        with pytest.raises(NotPlainError):
            sheet_reader._plainly(wanted, lambda some, *_: written.append(lines_of(some)))

        found, lines = told(by_blocks, wanted)

    assert b"".join(written).count(b"\n") > 50
    assert found.width == 2
    assert lines.splitlines() == [
        *(b'{"n1":"n%d","a&b":"a&b"}' % number for number in range(2, 100)),
        b"",
        b'{"n1":"2024-01-02"}',
    ]


@pytest.mark.parametrize(
    "rows",
    [
        "".join(f'<row r="{n}"><c r="A{n}" s="{n}"><v>{n}</v></c></row>' for n in range(1, 3_000)),
        '<row r="1">' + "".join(f'<c r="{letters(place)}1"><v>{place}</v></c>' for place in range(1_100)) + "</row>",
        '<row r="2"><c r="A2"><v>1</v></c></row><row r="1"><c r="A1"><v>2</v></c></row>',
        '<row r="1"><c r="A1"><v>1</v></c></row><row r="2"><c r="A3"><v>2</v></c></row>',
        '<!-- <row r="1"><c r="A1"><v>1</v></c></row> --><row r="1"><c r="A1"><v>2</v></c></row>',
    ],
    ids=["a style a row", "wide", "descending", "of another row", "a comment"],
)
def test_sheets_of_other_forms_are_left_to_calamine(rows: str) -> None:
    with wanted_of(book_of(rows)) as wanted:
        with pytest.raises(NotPlainError):
            sheet_reader._plainly(wanted, lambda *_: None)

        assert told(by_blocks, wanted) == told(by_calamine, wanted)


@pytest.mark.parametrize("cell", [b't="inlineStr"><is><t>a\0b</t></is>', b't="inlineStr"><is><t>\xff</t></is>'])
def test_bytes_that_are_no_text_are_left_to_calamine(cell: bytes) -> None:
    name = "xl/worksheets/sheet1.xml"
    book = book_of(row(1, [text("a")]) + row(2, [text("XX")]))
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        sheet = archive.read(name).replace(text("XX").encode(), cell)
    with wanted_of(with_member(book, name, sheet)) as wanted, pytest.raises(NotPlainError):
        sheet_reader._plainly(wanted, lambda *_: None)


@pytest.mark.parametrize("change", [{"CRC": 1}, {"file_size": 200}])
def test_a_part_that_is_not_what_the_directory_says_is_no_plain_one(change: dict[str, int]) -> None:
    rows = "".join(row(number, [text(f"n{number}")]) for number in range(1, 100))
    with wanted_of(book_of(rows)) as wanted:
        parts = Parts(wanted.path, 1)
        for name, value in change.items():
            setattr(parts._members[parts.sheet], name, value)

        with pytest.raises(NotPlainError):
            list(parts.stream(parts.sheet))


@pytest.mark.parametrize(
    "cell",
    [
        *map(number, ["1e400", " 5 ", "x", "-0", "1.50", "12345678901234567890", "0.10000000000000001"]),
        *map(text, [" a ", "a_x000D_b", "&#65;", "R&amp;D", 'say "hi"\\', "\u00a0a", "&lt;é&gt;", "a\r\nb", "a\tb"]),
        *(f't="s"><v>{place}</v>' for place in range(len(ITEMS))),
        number("45292.25", style=4),
        number("4.1666666666666664E-2", style=4),
    ],
)
def test_each_value_is_as_calamine_has_it_without_another_beside_it(cell: str) -> None:
    rows = row(1, [text("n"), text("v")]) + row(2, [number("1"), cell])
    with wanted_of(book_of(rows)) as wanted:
        found = told(sheet_reader._plainly, wanted)

        assert found == told(by_calamine, wanted)


def test_rows_that_are_much_narrower_than_the_widest_are_taken_some_at_a_time() -> None:
    rows = row(1, [text("a"), text("b"), text("c")]) + "".join(row(at, [number(str(at))]) for at in range(2, 50))
    with patch.object(plain_sheet, "_CELLS_AT_ONCE", 20), wanted_of(book_of(rows)) as wanted:
        written: list[bytes] = []

        found = sheet_reader._plainly(wanted, lambda some, *_: written.append(lines_of(some)))

        assert (found, b"".join(written)) == told(by_calamine, wanted)
    assert len(written) > 5
