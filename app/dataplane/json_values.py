"""JSON objects as columns of text: what a CSV file of the same values would give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import NoneType
from typing import Any, Final

import msgspec

from app.dataplane.chunks import NULL, Chunk
from app.dataplane.faults import Fault, shown

_SEPARATOR: Final = "\x1f"
_MOST_NAMED: Final = 5


class Literal(str):
    """A number as it stands in the file: no digit of it is lost."""

    __slots__ = ()


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


_DECODER: Final[Any] = json.JSONDecoder(parse_int=Literal, parse_float=Literal, parse_constant=_no_number)
SCAN: Final[Callable[[str, int], tuple[Any, int]]] = _DECODER.scan_once  # documented in json.scanner's source alone
"""The value that begins at a place of a text, and where it ends."""


def decoded_one(text: str) -> Any:
    """The one value of ``text``.

    Raises:
        ValueError: It is no JSON value, in a sentence.
    """
    try:
        value, end = SCAN(text, 0)
    except StopIteration as stop:
        raise ValueError(f"expected a value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if end != len(text):
        raise ValueError(f"expected its end after {end} characters, got more")
    return value


@dataclass(frozen=True, slots=True)
class Shape:
    """What a record may hold.

    Args:
        names: The keys that become columns, in their order.
        ignore_unknown: Leave out other keys, instead of refusing the record.
        max_field_bytes: Longer values are refused.
        keeps_null: null becomes ``chunks.NULL``, apart from empty text.
    """

    names: tuple[str, ...]
    ignore_unknown: bool
    max_field_bytes: int
    keeps_null: bool = False

    @property
    def quick(self) -> Quick:
        """The quick way to read records of this shape."""
        return _quick(self.names, self.ignore_unknown)

    def fill(self, chunk: Chunk, places: Sequence[int], rows: Sequence[Any]) -> bool:
        """Give ``chunk`` the columns of ``Quick`` rows at ``places`` of it; whether each value can be stored as it is.

        What cannot is to be looked at row by row, by ``row``.
        """
        if chunk.length > self.max_field_bytes:
            return False
        found = self.quick.columns(rows, keep_null=self.keeps_null)
        if found is None:
            return False
        chunk.members, (chunk.columns, chunk.plain) = places, found
        return True

    def fill_slowly(self, chunk: Chunk, found: Sequence[tuple[int, list[str | None] | Fault]]) -> None:
        """Give ``chunk`` what ``row`` made of the values at each place of it."""
        chunk.faults |= {place: row for place, row in found if isinstance(row, Fault)}
        members = [place for place, row in found if not isinstance(row, Fault)]
        null = NULL if self.keeps_null else b""
        rows = [
            [null if text is None else text.encode() for text in row] for _, row in found if not isinstance(row, Fault)
        ]
        chunk.members = members
        chunk.columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in self.names]
        chunk.plain = all(is_plain(b"".join(column)) for column in chunk.columns)

    def row(self, value: Any) -> list[str | None] | Fault:
        """The texts of one value, ``None`` for null, or why it is no row."""
        if not isinstance(value, dict):
            return Fault("json.not_an_object", f"expected an object, got {shown(_text(value))}")
        unknown = [] if self.ignore_unknown else [name for name in value if name not in self.names]
        if unknown:
            named = ", ".join(map(shown, unknown[:_MOST_NAMED]))
            return Fault("json.unknown_key", f"expected keys of the first records, got {named} too")
        try:
            texts = [None if value.get(name) is None else _text(value[name]) for name in self.names]
            return self._refusal([text for text in texts if text is not None]) or texts
        except UnicodeEncodeError:
            return Fault("json.encoding", "expected Unicode text, got half of a surrogate pair")
        except RecursionError:
            return Fault("json.too_deep", "a value is nested too deeply")

    def _refusal(self, texts: Sequence[str]) -> Fault | None:
        if any("\0" in text for text in texts):
            return Fault("json.nul", "expected text, got a NUL character, which no text may hold")
        limit, longest = self.max_field_bytes, max((len(text.encode()) for text in texts), default=0)
        if longest > limit:
            return Fault("json.field_too_long", f"a value has at most {limit} bytes, the longest here has {longest}")
        return None


_NEVER_IN_A_NAME: Final = re.compile(r'[\x00-\x1f"\\]')
"""msgspec cannot call a field so."""
_NEGATIVE_ZERO: Final = re.compile(rb"-0[,}\]\s]")


class Quick:
    """Reads objects by msgspec, which takes nothing that the scanner refuses: into structs, a field a name.

    What it does not take may be fine all the same (whole numbers of thousands of digits), so the scanner has the word.
    """

    def __init__(self, names: tuple[str, ...], *, ignore_unknown: bool) -> None:
        fields = [f"f{number}" for number in range(len(names))]
        self._is_possible = not any(map(_NEVER_IN_A_NAME.search, names))
        self._row: Any = msgspec.defstruct(
            "Row",
            [(field, Any, None) for field in fields],
            rename=dict(zip(fields, names, strict=True)) if self._is_possible else None,
            forbid_unknown_fields=not ignore_unknown,
            gc=False,
        )
        self._ignores = ignore_unknown
        self._getters = [attrgetter(field) for field in fields]
        self._decode = msgspec.json.Decoder(self._row, float_hook=Literal).decode
        self._decode_all = msgspec.json.Decoder(list[self._row], float_hook=Literal).decode  # type: ignore[name-defined]

    def lines(self, block: bytes, lines: Sequence[bytes]) -> list[Any]:
        """A row for each line of ``block``, ``None`` for what is to be read by the scanner."""
        if not self._is_exact(block):
            return [None] * len(lines)
        try:
            return list(map(self._decode, lines))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return list(map(self._one, lines))

    def array(self, text: bytes) -> list[Any] | None:
        """The rows of a whole array; ``None`` when the scanner is to read it."""
        try:
            return self._decode_all(text) if self._is_exact(text) else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def row(self, texts: Sequence[str | None]) -> Any:
        """The row of these values."""
        return self._row(*texts)

    def columns(self, rows: Sequence[Any], *, keep_null: bool) -> tuple[list[list[bytes]], bool] | None:
        """The values of rows in UTF-8, and whether all are plain; ``None`` when some value cannot be stored so."""
        columns, plain = [], True
        for getter in self._getters:
            values = list(map(getter, rows))
            found = encoded(values)
            if found is None:
                return None
            column, plain = found[0], plain and found[1]
            if keep_null and None in values:
                column = [NULL if value is None else text for value, text in zip(values, column, strict=True)]
            columns.append(column)
        return columns, plain

    def _one(self, line: bytes) -> Any:
        try:
            return self._decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _is_exact(self, block: bytes) -> bool:
        if not self._is_possible or _NEGATIVE_ZERO.search(block):  # which would lose their sign
            return False
        return not self._ignores or block.isascii() or _is_utf8(block)  # what is left out is not decoded


@lru_cache(maxsize=64)
def _quick(names: tuple[str, ...], ignore_unknown: bool) -> Quick:
    return Quick(names, ignore_unknown=ignore_unknown)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_plain(joined: bytes) -> bool:
    """Whether COPY takes texts as they stand."""
    return not any(mark in joined for mark in (b"\\", b"\t", b"\n", b"\r"))


def encoded(column: list[Any]) -> tuple[list[bytes], bool] | None:
    """A column in UTF-8, and whether it is plain; ``None`` when some value cannot be."""
    kinds = set(map(type, column))
    if kinds == {int}:
        column = list(map(str, column))
    elif kinds <= {str, Literal, NoneType}:
        column = [value or "" for value in column] if NoneType in kinds else column
    else:
        try:
            column = list(map(_text, column))
        except RecursionError:
            return None
    text = _SEPARATOR.join(column)
    if "\0" in text:
        return None
    try:
        joined = text.encode()
    except UnicodeEncodeError:
        return None
    values = joined.split(_SEPARATOR.encode())
    return values if len(values) == len(column) else [value.encode() for value in column], is_plain(joined)


def _text(value: Any) -> str:
    """A value as a file of text would have it; null is empty, lists and objects stay JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return str(value) if type(value) is int else json_text(value)


def json_text(value: Any) -> str:
    """A value that was decoded here, as JSON again; numbers as they stood."""
    if isinstance(value, Literal):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {json_text(item)}" for name, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def names_of(values: Sequence[Any]) -> tuple[str, ...]:
    """Every key of the objects among ``values``, in the order of their first appearance."""
    return tuple(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))
