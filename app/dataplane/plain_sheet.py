"""Sheets in the form that programs write: whole rows by one pattern, blocks of them by columns, in flat memory.

The pattern of a row is learned: it has for each column the kinds of cells that were met there. Where cells do not say
their places, as in exports of Haulier, every row must have as many as the others. What stands in no cell
of a known form ends the reading, and calamine goes on. Values of a form that is not told apart here are read by
calamine too, alone. A property of the tests holds both to the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import lt
from typing import Final

from app.dataplane.sheet_cells import NUL, Cells, Column, Kind
from app.dataplane.sheet_parts import NotPlainError, Parts

_MOST_ROWS: Final = 1_048_576
_BLOCK_BYTES: Final = 1 << 20
_LONGEST_ROW_BYTES: Final = 1 << 24
_MOST_COLUMNS: Final = 1_000
_MOST_KINDS: Final = 4_000
_MOST_LESSONS: Final = 50
_ROWS_LEARNED_FROM: Final = 50
_CELLS_AT_ONCE: Final = 500_000
_ROW_END: Final = b"</row>"
_END: Final = b"</sheetData>"
_LETTERS: Final = 26
_BEFORE_A: Final = ord("A") - 1

_ROW: Final = re.compile(rb'<row(?: r="[1-9][0-9]{0,6}+"[^>/]*+)?+(?:/>|>((?:[^<]|<(?!/row>))*+)</row>)\s*+')
_EMPTY_ROWS_AND_END: Final = re.compile(rb"(?:<row [^>/]*+/>\s*+)*+</sheetData>")
_HEAD: Final = re.compile(rb"\s*+(?:<\?xml [^>]*+>\s*+)?+<worksheet [^>]*+>")
_REST: Final = rb"((?s:.+))"
"""What no row begins."""
_FORMULA: Final = rb"(?:<f(?: [^>]*+)?+>(?:[^<]*+</f>)?+)?+"
_EMPTY: Final = rb"(?: ?+/>|></c>|>" + _FORMULA + rb"<v></v></c>|><f(?: [^>]*+)?+>(?:[^<]*+</f>)?+(?:<v ?+/>)?+</c>)"
_CELL: Final = re.compile(
    rb'<c(?: r="([A-Z]{1,3}+)[0-9]++")?+((?: [a-z]++="[^"<>&]*+")*+)'
    rb"(?:" + _EMPTY + rb"|>(<f(?: [^>]*+)?+>(?:[^<]*+</f>)?+)?+(?:(<v>)[^<]++(</v>)"
    rb'|(<is><t(?: xml:space="preserve")?+>)[^<]*+(</t></is>)|(<is>)(?:[^<]|<(?!/is>))*+(</is>))</c>)'
)
"""With the letters of its column, if it says them, its attributes, its formula, and what stands around the value."""
_ATTRIBUTES: Final = re.compile(rb'(?: (?:s="[0-9]++"|t="(?:n|s|b|e|str|inlineStr)"))*+')
_VALUES: Final = {b"<v>": rb"([^<]++)", b"<is>": rb"((?:[^<]|<(?!/is>))*+)"}
"""Of leads; the others stand before texts without tags."""
_NO_VALUE: Final = rb'(?: s="[0-9]++")?+(?:' + _EMPTY + rb'|(?: t="(?:n|inlineStr)")?+ ?+/>)'


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows that follow each other.

    Args:
        numbers: In the sheet, counted from 1, ascending; rows that are missing between them are empty.
        columns: From the sheet's first on.
        found: The values of each row as they stood, behind its number; ``None`` for no cell, and in the end.
        dates: The places of dates and times in these.
    """

    numbers: list[int]
    columns: list[Column]
    found: list[tuple[bytes | None, ...]]
    dates: list[int]

    def from_place(self, place: int) -> Rows:
        """Those from a place on."""
        if not place:
            return self
        columns = [Column(NUL.join(column.values()[place:]), column.is_text) for column in self.columns]
        return Rows(self.numbers[place:], columns, self.found[place:], self.dates)

    def has_cells(self, place: int) -> bool:
        """Whether the row has a cell with a value, be it an empty text."""
        return any(value is not None for value in self.found[place][1:])

    def has_dates(self, place: int) -> bool:
        """Whether the row has a date or a time."""
        return any(self.found[place][at] is not None for at in self.dates)


class PlainSheet:
    """Reads one sheet from its beginning."""

    def __init__(self, parts: Parts) -> None:
        self.width = 0
        """Columns up to the last that has a value in the rows that were read."""
        self.begins_with_a = False
        """Whether the first column has a value in these."""
        self._parts = parts
        self._cells = Cells(parts)
        self._kinds: list[dict[Kind, bool]] = []
        self._slots: list[tuple[int, Kind]] = []
        self._row = re.compile(_REST)
        self._lessons = 0
        self._has_places = True
        self._last = 0

    def rows(self) -> Iterator[Rows]:
        """The rows, in blocks.

        Raises:
            NotPlainError: The sheet goes on in a way that is not known here, or should be refused.
        """
        rest, begun, ended = b"", False, False
        for piece in self._parts.stream(self._parts.sheet):
            if ended:
                continue  # the checksum is of all
            rest += piece
            if not begun:
                begun, rest = _begun(rest)
            if not begun or len(rest) < _BLOCK_BYTES:
                continue
            rows, rest, ended = _cut(rest)
            if rows:
                yield from self._rows(rows)
            elif len(rest) > _LONGEST_ROW_BYTES:
                raise NotPlainError("a row that is too long")
        if begun and not ended:
            rows, _, ended = _cut(rest)
            yield from self._rows(rows)
        if not ended:
            raise NotPlainError("rows without an end")

    def _rows(self, block: bytes) -> Iterator[Rows]:
        if b"\0" in block:
            raise NotPlainError("a NUL")
        if not self._lessons:
            self._has_places = not block.startswith(b"<row>")
        at, learned_at = 0, -1
        while at < len(block):
            rows = map(re.Match.groups, self._row.finditer(block, at))
            at = len(block)
            while found := list(islice(rows, max(1, _CELLS_AT_ONCE // (len(self._slots) + 1)))):
                if (rest := found[-1][-1]) is not None:
                    found.pop()
                    at = len(block) - len(rest)
                if found:
                    yield self._made(found)
            if at == learned_at:
                raise NotPlainError("cells of another form")
            if at < len(block):
                self._learn(block, at)
                learned_at = at

    def _learn(self, block: bytes, at: int) -> None:
        """Take the cells of the next rows into the pattern."""
        self._lessons += 1
        for _ in range(_ROWS_LEARNED_FROM):
            row = _ROW.match(block, at)
            if row is None:
                break
            self._learn_row(row[1] or b"")
            at = row.end()
        self._slots = [(place, kind) for place, kinds in enumerate(self._kinds) for kind in _in_order(kinds)]
        if self._lessons > _MOST_LESSONS or len(self._slots) > _MOST_KINDS:
            raise NotPlainError("cells of too many kinds")
        cells = b"".join(self._pattern(place, kinds) for place, kinds in enumerate(self._kinds))
        head = rb'<row r="([1-9][0-9]{0,6}+)"[^>/]*+(?:/>|>' if self._has_places else rb"(<row>)(?:"
        self._row = re.compile(head + cells + rb"</row>)\s*+|" + _REST)

    def _learn_row(self, cells: bytes) -> None:
        at, place = 0, -1
        while at < len(cells):
            cell = _CELL.match(cells, at)
            if cell is None or not _ATTRIBUTES.fullmatch(cell[2]):
                raise NotPlainError("a cell of another form")
            if (cell[1] is not None) != self._has_places:
                raise NotPlainError("cells with their places, and without")
            if cell[1] is None and b't="e"' in cell[2]:
                raise NotPlainError("an error without its place, which is lost")
            place = place + 1 if cell[1] is None else place_of(cell[1])
            if place >= _MOST_COLUMNS:
                raise NotPlainError("too many columns")
            self._kinds += [{} for _ in range(len(self._kinds), place + 1)]
            lead = cell[4] or cell[6] or cell[8]
            if lead:
                if lead.startswith(b"<is>") != (b't="inlineStr"' in cell[2]):
                    raise NotPlainError("a text where its kind does not have it")
                kind = Kind(cell[2], lead, cell[5] or cell[7] or cell[9])
                kinds = self._kinds[place]
                kinds[kind] = kinds.get(kind, False) or cell[3] is not None
            at = cell.end()

    def _pattern(self, place: int, kinds: Mapping[Kind, bool]) -> bytes:
        """Of one cell in a column; where it says its place, of none too."""
        forms = [
            re.escape(kind.attributes)
            + b">"
            + (_FORMULA if kinds[kind] else b"")
            + kind.lead
            + _VALUES.get(kind.lead, rb"([^<]*+)")
            + kind.end
            + b"</c>"
            for kind in _in_order(kinds)
        ]
        cell = b"(?:%b)" % b"|".join((*forms, _NO_VALUE))
        return rb'(?:<c r="%b\1"%b)?+' % (letters_of(place), cell) if self._has_places else b"<c" + cell

    def _made(self, found: list[tuple[bytes | None, ...]]) -> Rows:
        """These rows by columns."""
        names, *slots, _ = zip(*found, strict=True)
        first = self._last + 1
        numbers = list(map(int, names)) if self._has_places else list(range(first, first + len(names)))
        if not self._last < numbers[0] or not all(map(lt, numbers, numbers[1:])) or numbers[-1] > _MOST_ROWS:
            raise NotPlainError("rows in another order, or too many")
        self._last = numbers[-1]
        columns = [Column(NUL * (len(numbers) - 1), is_text=True)] * len(self._kinds)
        filled: set[int] = set()
        for (place, kind), values in zip(self._slots, slots, strict=True):
            if values.count(None) < len(values):
                column = self._cells.column(kind, values)
                columns[place] = _merged(columns[place], column) if place in filled else column
                filled.add(place)
        self.begins_with_a |= 0 in filled
        self.width = max(self.width, max(filled, default=-1) + 1)
        dates = [at for at, (_, kind) in enumerate(self._slots, start=1) if self._cells.is_date(kind)]
        return Rows(numbers, columns, found, dates)


def _cut(data: bytes) -> tuple[bytes, bytes, bool]:
    """Whole rows, what is behind them, and whether that is the end of the rows.

    Raises:
        NotPlainError: The end stands in another place.
    """
    end = data.rfind(_ROW_END) + len(_ROW_END)
    rows, rest = (data[:end], data[end:].lstrip()) if end >= len(_ROW_END) else (b"", data)
    ended = _EMPTY_ROWS_AND_END.match(rest) is not None
    if not ended and _END in rest:
        raise NotPlainError("rows with another end")
    return rows, rest, ended


def _begun(data: bytes) -> tuple[bool, bytes]:
    """Whether the rows have begun, and what is there of them; all of it while they have not.

    Raises:
        NotPlainError: What stands before them is not known.
    """
    head, begin, rows = data.partition(b"<sheetData>")
    if b"<!" in head or len(head) > _BLOCK_BYTES or (begin and not _HEAD.match(head)):
        raise NotPlainError("a sheet with another beginning")
    return (True, rows.lstrip()) if begin else (False, data)


def _in_order(kinds: Iterable[Kind]) -> list[Kind]:
    """The kinds of a column as they are tried: what may be any text comes last."""
    return sorted(kinds, key=lambda kind: kind.lead == b"<is>")


def place_of(letters: bytes) -> int:
    """The column of these letters, counted from 0."""
    return reduce(lambda sum_, letter: _LETTERS * sum_ + letter - _BEFORE_A, letters, 0) - 1


def letters_of(place: int) -> bytes:
    """The letters of a column, counted from 0."""
    letters = b""
    number = place + 1
    while number:
        number, letter = divmod(number - 1, _LETTERS)
        letters = bytes([_BEFORE_A + 1 + letter]) + letters
    return letters


def _merged(one: Column, other: Column) -> Column:
    """A column whose cells are of two kinds."""
    is_text = one.is_text and other.is_text
    pairs = zip(*((each.values() if is_text else each.literals()) for each in (one, other)), strict=True)
    return Column(NUL.join([first or second for first, second in pairs]), is_text)
