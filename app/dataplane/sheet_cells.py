"""Cells of a sheet, a column at a time: from XML to JSON, as calamine and then msgspec would have made it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeGuard

import msgspec

from app.dataplane.sheet_parts import TEXTS, NotPlainError, Parts

Values = Sequence[bytes | None]
"""Of a column; ``None`` where a row has no such cell."""

_MOST_KEPT: Final = 100_000
_BLOCK_BYTES: Final = 1 << 20
_INTEGER: Final = rb"0|-?[1-9][0-9]{0,14}"
_NUMBER: Final = re.compile(_INTEGER + rb"|-?(?:0|[1-9][0-9]{0,9})\.[0-9]{0,3}[1-9]")
"""Is written by msgspec as it stands: no double lies nearer to another of so few digits."""
_FLOAT: Final = re.compile(rb"-?[0-9]{1,40}(?:\.[0-9]{1,40})?+(?:[eE][-+]?[0-9]{1,4})?+")
_RUN: Final = re.compile(rb"(?:(?:" + _INTEGER + rb")?+\0)*+")
_DAY: Final = re.compile(rb"[0-9]{1,7}(?:\.[0-9]{1,25})?+(?:E-[0-9]{1,2})?+")
"""A date or time that calamine has room for."""
_BOOLEANS: Final = {None: b"", b"0": b"false", b"1": b"true"}
_ERRORS: Final = frozenset((b"#DIV/0!", b"#N/A", b"#NAME?", b"#NULL!", b"#NUM!", b"#REF!", b"#VALUE!"))
_CONTROLS: Final = bytes({*range(0x20)} - {*b"\0\t\n"})
_ENTITIES: Final = {b"&lt;": b"<", b"&gt;": b">", b"&quot;": b'"', b"&apos;": b"'", b"&amp;": b"&"}
_ESCAPES: Final = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\t": b"\\t"}
"""How JSON has what else texts hold; the backslash is first, as the ampersand is last above."""
_ODD: Final = re.compile(rb"[\x01-\x08\x0b-\x1f]|_x|&(?!(?:amp|lt|gt|quot|apos);)")
"""Line ends of other kinds and what is spelled in ways of Excel or XML that are not told apart here."""
_ITEM: Final = re.compile(rb'<si><t( xml:space="preserve")?+>([^<]*+)</t></si>')
_ITEM_BYTES: Final = len(b"<si><t></t></si>")


class Column(NamedTuple):
    """Values of a column as JSON, empty where there is none; those of texts lack the quotes."""

    values: list[bytes]
    is_text: bool

    def literals(self) -> list[bytes]:
        """Whole JSON, empty where there is none or an empty text."""
        return [b'"%b"' % value if value else b"" for value in self.values] if self.is_text else self.values


class Kind(NamedTuple):
    """What cells have in common, but for their values.

    Args:
        attributes: Of the element, behind its place, as they stand.
        lead: What stands before the value.
        end: What stands behind it, up to the end tag of the cell.
    """

    attributes: bytes
    lead: bytes
    end: bytes


class Cells:
    """Makes JSON of the values of a workbook."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._shared: list[bytes] | None = None
        self._is_date: dict[bytes, bool] = {}
        self._known: dict[Kind, dict[bytes | None, bytes]] = {}

    def column(self, kind: Kind, values: Values) -> Column:
        """The JSON of these values; raises NotPlainError when one has no meaning that is known here."""
        if kind.lead == b"<is>":
            return self._by_calamine(kind, values)
        of_type = {
            b"s": self._by_number,
            b"inlineStr": self._texts,
            b"str": self._texts,
            b"b": self._booleans,
            b"e": self._errors,
        }
        convert = of_type.get(_attribute(kind, b"t") or b"n") if b" t=" in kind.attributes else None
        if convert is None:
            convert = self._dates if self.is_date(kind) else self._numbers
        return convert(kind, values)

    def is_date(self, kind: Kind) -> bool:
        """Whether cells of this kind are dates or times, by the format of their style."""
        if _attribute(kind, b"t") not in (None, b"n"):
            return False
        style = _attribute(kind, b"s") or b""
        if style not in self._is_date:
            (found,) = self._parts.values([_cell(kind, b"45292.75")])
            self._is_date[style] = not isinstance(found, float)
        return self._is_date[style]

    def _by_number(self, _: Kind, values: Values) -> Column:
        if self._shared is None:
            self._shared = self._read_shared()
        texts = self._shared
        try:
            if _is_full(values):
                return Column(list(map(texts.__getitem__, map(int, values))), is_text=True)
            return Column([texts[int(value)] if value else b"" for value in values], is_text=True)
        except (IndexError, ValueError):
            raise NotPlainError("a text that is not there") from None

    def _read_shared(self) -> list[bytes]:
        """All texts that cells have by number."""
        texts: list[bytes] = []
        rest = b""
        for piece in self._parts.stream(TEXTS):
            rest += piece
            if len(rest) < _BLOCK_BYTES:
                continue
            end = rest.rfind(b"</si>") + len(b"</si>")
            if end >= len(b"</si>"):
                texts += self._items(_behind_head(rest[:end]) if not texts else rest[:end])
                rest = rest[end:]
        end = rest.rfind(b"</sst>")
        texts += self._items(_behind_head(rest[:end]) if not texts else rest[:end])
        if not rest[end:].startswith(b"</sst>"):
            raise NotPlainError("shared texts without an end")
        return texts

    def _items(self, items: bytes) -> list[bytes]:
        """The texts of some whole items."""
        if b"\0" in items:
            raise NotPlainError("a NUL")
        found = _ITEM.findall(items)
        spaces, texts = [one[0] for one in found], [one[1] for one in found]
        length = sum(map(len, texts)) + sum(map(len, spaces)) + len(found) * _ITEM_BYTES
        if length != len(items):
            return [_encoded(text)[1:-1] for text in self._parts.texts(items)]
        return self._decoded(texts, lambda place: b' t="inlineStr"><is><t%b>%b</t></is>' % found[place], trimmed=True)

    def _texts(self, kind: Kind, values: Values) -> Column:
        trimmed = kind.lead.endswith(b"<t>")
        return Column(
            self._decoded(_without_none(values), lambda place: _cell(kind, values[place] or b""), trimmed=trimmed),
            is_text=True,
        )

    def _decoded(self, values: list[bytes], cell: Callable[[int], bytes], *, trimmed: bool) -> list[bytes]:
        """Texts of XML as those of JSON, without the quotes; ``cell`` is a whole cell with the text at a place."""
        joined = b"\0".join(values)
        if not joined.isascii():
            _check_utf8(joined)
        odd = _odd_places(values, joined, trimmed=trimmed)
        if odd:
            values = list(values)
            for place in odd:
                values[place] = b""
            joined = b"\0".join(values)
        spelled = _spelled(joined)
        if spelled is joined and not odd:
            return values
        values = spelled.split(b"\0")
        for place, text in zip(odd, self._parts.values(list(map(cell, odd))) if odd else (), strict=True):
            values[place] = _encoded(text)[1:-1]
        return values

    def _numbers(self, kind: Kind, values: Values) -> Column:
        known = _without_none(values)
        joined = b"\0".join(known) + b"\0"
        if _RUN.fullmatch(joined):
            return Column(known, is_text=False)
        odd = [place for place, value in enumerate(known) if value and not _NUMBER.fullmatch(value)]
        others = [place for place in odd if not _FLOAT.fullmatch(known[place])]
        found = dict(zip(others, self._by_calamine(kind, [known[place] for place in others]).values, strict=True))
        for place in odd:
            known[place] = found[place] if place in found else _json(float(known[place]))
        return Column(known, is_text=False)

    def _dates(self, kind: Kind, values: Values) -> Column:
        if not all(value is None or _DAY.fullmatch(value) for value in values):
            raise NotPlainError("a date that is none")
        return self._by_calamine(kind, values)

    def _by_calamine(self, kind: Kind, values: Values) -> Column:
        known = self._known.setdefault(kind, {None: b""})
        if len(known) > _MOST_KEPT:
            known.clear()
            known[None] = b""
        if asked := sorted({value for value in values if value is not None} - known.keys()):
            found = self._parts.values([_cell(kind, value) for value in asked])
            known.update(zip(asked, map(_json, found), strict=True))
        return Column(list(map(known.__getitem__, values)), is_text=False)

    def _booleans(self, _: Kind, values: Values) -> Column:
        try:
            return Column([_BOOLEANS[value] for value in values], is_text=False)
        except KeyError:
            raise NotPlainError("a boolean that is neither 0 nor 1") from None

    def _errors(self, _: Kind, values: Values) -> Column:
        if not {value for value in values if value is not None} <= _ERRORS:
            raise NotPlainError("an error of another kind")
        return Column(_without_none(values), is_text=True)


def whole_number(value: Any) -> Any:
    """A number of a sheet, which are all floats, as an integer if it is one."""
    return int(value) if type(value) is float and value.is_integer() else value


def _json(value: Any) -> bytes:
    return b"" if value == "" else _encoded(whole_number(value))


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _cell(kind: Kind, value: bytes) -> bytes:
    return b"%b>%b%b%b" % (kind.attributes, kind.lead, value, kind.end)


def _attribute(kind: Kind, name: bytes) -> bytes | None:
    found = re.search(rb' %b="([^"]*)"' % name, kind.attributes)
    return found[1] if found else None


def _without_none(values: Values) -> list[bytes]:
    return list(values) if _is_full(values) else [value or b"" for value in values]


def _is_full(values: Values) -> TypeGuard[Sequence[bytes]]:
    return None not in values


def _odd_places(values: list[bytes], joined: bytes, *, trimmed: bool) -> list[int]:
    """The places of texts that calamine is to read; ``joined`` are all, by NUL."""
    if (
        b"_x" not in joined
        and joined.count(b"&") == sum(map(joined.count, _ENTITIES))
        and len(joined.translate(None, _CONTROLS)) == len(joined)
        and not (trimmed and list(map(bytes.strip, values)) != values)
    ):
        return []
    return [place for place, value in enumerate(values) if _ODD.search(value) or (trimmed and value.strip() != value)]


def _spelled(texts: bytes) -> bytes:
    """Texts of XML as those of JSON; the same object if that is the same."""
    if b"&" in texts:
        for entity, character in _ENTITIES.items():
            texts = texts.replace(entity, character)
    for character, spelled in _ESCAPES.items():
        if character in texts:
            texts = texts.replace(character, spelled)
    return texts


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise NotPlainError("bytes that are not UTF-8") from None


def _behind_head(items: bytes) -> bytes:
    """Shared texts without what stands before the first."""
    begin = items.find(b"<si>")
    head = items[:begin] if begin >= 0 else items
    if b"<sst" not in head or b"<!" in head or b"/>" in head:
        raise NotPlainError("shared texts of another form")
    return items[begin:] if begin >= 0 else b""
