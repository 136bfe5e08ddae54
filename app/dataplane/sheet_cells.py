"""Cells of a sheet, a column at a time: from XML to what calamine and then msgspec would have made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeGuard

import msgspec

from app.dataplane.sheet_parts import TEXTS, NotPlainError, Parts

Values = Sequence[bytes | None]
"""Of a column; ``None`` where a row has no such cell."""

NUL: Final = b"\0"

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
    """Values of a column with NUL between two, empty where there is none: texts in UTF-8, or whole JSON.

    Texts hold no control characters but tabs and line ends.
    """

    joined: bytes
    is_text: bool

    def values(self) -> list[bytes]:
        """Each as it stands."""
        return self.joined.split(NUL)

    def spelled(self) -> bytes:
        """The same as JSON, but for the quotes of texts."""
        return _replaced(self.joined, _ESCAPES) if self.is_text else self.joined

    def spelled_bytes(self) -> int:
        """The length of ``spelled``."""
        joined = self.joined
        return len(joined) + (sum(joined.count(one) for one in _ESCAPES if one in joined) if self.is_text else 0)

    def literals(self) -> list[bytes]:
        """Whole JSON, empty where there is none or an empty text."""
        values = self.spelled().split(NUL)
        return [b'"%b"' % value if value else b"" for value in values] if self.is_text else values


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
        self._shared_are_texts = True
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
                found = list(map(texts.__getitem__, map(int, values)))
            else:
                found = [texts[int(value)] if value else b"" for value in values]
        except (IndexError, ValueError):
            raise NotPlainError("a text that is not there") from None
        return Column(NUL.join(found), self._shared_are_texts)

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
        if _has_controls(b"".join(texts)):
            self._shared_are_texts = False
            return [_json(text.decode()) for text in texts]
        return texts

    def _items(self, items: bytes) -> list[bytes]:
        """The texts of some whole items."""
        if b"\0" in items:
            raise NotPlainError("a NUL")
        found = _ITEM.findall(items)
        spaces, texts = [one[0] for one in found], [one[1] for one in found]
        length = sum(map(len, texts)) + sum(map(len, spaces)) + len(found) * _ITEM_BYTES
        if length != len(items):
            return [_utf8(text) for text in self._parts.texts(items)]
        joined, odd = self._decoded(
            texts, lambda place: b' t="inlineStr"><is><t%b>%b</t></is>' % found[place], trimmed=True
        )
        texts = joined.split(NUL) if texts else []
        for place, text in odd.items():
            texts[place] = _utf8(text)
        return texts

    def _texts(self, kind: Kind, values: Values) -> Column:
        joined, odd = self._decoded(
            _without_none(values),
            lambda place: _cell(kind, values[place] or b""),
            trimmed=kind.lead.endswith(b"<t>"),
        )
        if not odd:
            return Column(joined, is_text=True)
        literals = Column(joined, is_text=True).literals()
        for place, text in odd.items():
            literals[place] = _json(text)
        return Column(NUL.join(literals), is_text=False)

    def _decoded(
        self, values: list[bytes], cell: Callable[[int], bytes], *, trimmed: bool
    ) -> tuple[bytes, dict[int, str]]:
        """Texts without their XML, and those that calamine has read, by their places, which are empty in the first.

        Args:
            cell: A whole cell with the text at a place.
        """
        joined = NUL.join(values)
        if not joined.isascii():
            _check_utf8(joined)
        odd = _odd_places(values, joined, trimmed=trimmed)
        if odd:
            values = list(values)
            for place in odd:
                values[place] = b""
            joined = NUL.join(values)
        found = self._parts.values(list(map(cell, odd))) if odd else ()
        return _replaced(joined, _ENTITIES) if b"&" in joined else joined, dict(zip(odd, found, strict=True))

    def _numbers(self, kind: Kind, values: Values) -> Column:
        known = _without_none(values)
        joined = NUL.join(known)
        if _RUN.fullmatch(joined + NUL):
            return Column(joined, is_text=False)
        odd = [place for place, value in enumerate(known) if value and not _NUMBER.fullmatch(value)]
        others = [place for place in odd if not _FLOAT.fullmatch(known[place])]
        found = self._by_calamine(kind, [known[place] for place in others]).values() if others else []
        by_place = dict(zip(others, found, strict=True))
        for place in odd:
            known[place] = by_place[place] if place in by_place else _json(float(known[place]))
        return Column(NUL.join(known), is_text=False)

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
        return Column(NUL.join(map(known.__getitem__, values)), is_text=False)

    def _booleans(self, _: Kind, values: Values) -> Column:
        try:
            return Column(NUL.join([_BOOLEANS[value] for value in values]), is_text=False)
        except KeyError:
            raise NotPlainError("a boolean that is neither 0 nor 1") from None

    def _errors(self, _: Kind, values: Values) -> Column:
        if not {value for value in values if value is not None} <= _ERRORS:
            raise NotPlainError("an error of another kind")
        return Column(NUL.join(_without_none(values)), is_text=True)


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
        and (b"&" not in joined or joined.count(b"&") == sum(map(joined.count, _ENTITIES)))
        and not _has_controls(joined)
        and not (trimmed and list(map(bytes.strip, values)) != values)
    ):
        return []
    return [place for place, value in enumerate(values) if _ODD.search(value) or (trimmed and value.strip() != value)]


def _has_controls(text: bytes) -> bool:
    return len(text.translate(None, _CONTROLS)) != len(text)


def _replaced(text: bytes, others: Mapping[bytes, bytes]) -> bytes:
    for one, other in others.items():
        if one in text:
            text = text.replace(one, other)
    return text


def _utf8(text: str) -> bytes:
    if "\0" in text:
        raise NotPlainError("a NUL that is spelled")
    return text.encode()


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
