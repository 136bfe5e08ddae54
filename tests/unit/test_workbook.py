"""The workbook that XML rows become."""

from __future__ import annotations

import io
import zipfile

from app.dataplane.workbook import Workbook


class Unseekable(io.RawIOBase):
    """Keeps what it is given, and can only go forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def writable(self) -> bool:
        return True

    def write(self, block: bytes, /) -> int:  # type: ignore[override]
        self.body += bytes(block)
        return len(block)


def sheets(rows: list[bytes], *, block: int, header: bool = True) -> list[bytes]:
    """The sheets of three rows at most that ``rows`` make, written in blocks of so many bytes."""
    out = Unseekable()
    workbook = Workbook(out, ["n"] if header else None, sheet_rows=3)
    data = b"".join(rows)
    for start in range(0, len(data), block):
        workbook.write(data[start : start + block])
    workbook.finish()
    with zipfile.ZipFile(io.BytesIO(out.body)) as packed:
        assert packed.testzip() is None
        names = [name for name in packed.namelist() if name.startswith("xl/worksheets/")]
        return [packed.read(name) for name in names]


ROWS = [b"<row><c><v>%d</v></c></row>\n" % number for number in range(5)]


def test_a_full_sheet_is_followed_by_another_with_the_header_again() -> None:
    for block in (1, 7, 40, 1_000):
        found = sheets(ROWS, block=block)

        assert [sheet.count(b"<row>") for sheet in found] == [3, 3, 2]
        assert all(b">n</t>" in sheet for sheet in found)


def test_a_sheet_that_is_just_full_has_no_empty_successor() -> None:
    found = sheets(ROWS[:3], block=1_000, header=False)

    assert len(found) == 1
    assert found[0].count(b"<row>") == 3


def test_no_rows_make_one_empty_sheet() -> None:
    found = sheets([], block=1, header=False)

    assert len(found) == 1
    assert b"<row>" not in found[0]


def test_a_workbook_that_is_given_up_lets_go_of_its_sheet() -> None:
    workbook = Workbook(Unseekable(), ["n"])
    workbook.write(ROWS[0])

    workbook.drop()
    workbook.drop()
