"""JSON objects as columns of text: what a CSV file of the same values would give."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

from app.dataplane.chunks import Chunk
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


def decoded(texts: Sequence[str]) -> list[Any] | None:
    """The one value of each text, found by a few calls on all; ``None`` when some text is no JSON value."""
    try:
        found = list(map(SCAN, texts, repeat(0)))
    except (ValueError, RecursionError):
        return None
    # A text that is no value at all ends the map without a word.
    if len(found) != len(texts) or [end for _, end in found] != list(map(len, texts)):
        return None
    return [value for value, _ in found]


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
    """

    names: tuple[str, ...]
    ignore_unknown: bool
    max_field_bytes: int

    def fill(self, chunk: Chunk, places: Sequence[int], values: Sequence[Any]) -> None:
        """Give ``chunk`` the columns of ``values``, which stand at ``places`` of it; unfit ones join its faults."""
        columns = self._quick(values) if chunk.length <= self.max_field_bytes else None
        if columns is not None:
            chunk.members, chunk.columns = places, columns
        else:
            self._careful(chunk, places, values)
        chunk.plain = all(map(_is_plain, chunk.columns))

    def _quick(self, values: Sequence[Any]) -> list[list[bytes]] | None:
        if set(map(type, values)) - {dict}:
            return None
        if not self.ignore_unknown and not set().union(*values) <= set(self.names):
            return None
        columns = []
        for name in self.names:
            column = _encoded([value.get(name) for value in values])
            if column is None:
                return None
            columns.append(column)
        return columns

    def _careful(self, chunk: Chunk, places: Sequence[int], values: Sequence[Any]) -> None:
        rows, members = [], []
        for place, value in zip(places, values, strict=True):
            row = self._row(value)
            if isinstance(row, Fault):
                chunk.faults[place] = row
            else:
                rows.append(row)
                members.append(place)
        chunk.members = members
        chunk.columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in self.names]

    def _row(self, value: Any) -> list[bytes] | Fault:
        if not isinstance(value, dict):
            return Fault("json.not_an_object", f"expected an object, got {shown(_text(value))}")
        unknown = [] if self.ignore_unknown else [name for name in value if name not in self.names]
        if unknown:
            named = ", ".join(map(shown, unknown[:_MOST_NAMED]))
            return Fault("json.unknown_key", f"expected keys of the first records, got {named} too")
        try:
            texts = [_text(value.get(name)) for name in self.names]
            return self._refusal(texts) or [text.encode() for text in texts]
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


def _is_plain(column: list[bytes]) -> bool:
    joined = b"".join(column)
    return not any(mark in joined for mark in (b"\\", b"\t", b"\n", b"\r"))


def _encoded(column: list[Any]) -> list[bytes] | None:
    """A column in UTF-8; ``None`` when some value cannot be."""
    kinds = set(map(type, column))
    if not kinds <= {str, Literal}:
        try:
            column = [value if isinstance(value, str) else _text(value) for value in column]
        except RecursionError:
            return None
    joined = _SEPARATOR.join(column)
    if "\0" in joined:
        return None
    try:
        values = joined.encode().split(_SEPARATOR.encode())
    except UnicodeEncodeError:
        return None
    return values if len(values) == len(column) else [value.encode() for value in column]


def _text(value: Any) -> str:
    """A value as a file of text would have it; null is empty, lists and objects stay JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    if isinstance(value, Literal):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {_json(item)}" for name, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def names_of(values: Sequence[Any]) -> tuple[str, ...]:
    """Every key of the objects among ``values``, in the order of their first appearance."""
    return tuple(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))
