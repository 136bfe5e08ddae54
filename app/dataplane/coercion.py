"""Whole columns of values: which of them fit, and what COPY is given of them.

A column is first looked at by a few calls that know the common form of its type. Where some value has another, one
pattern finds those, and only they go through the grammar. A property of the tests holds all three to the same answer.

Empty text is NULL for every type.
"""

# ruff: noqa: ARG001 - every look has one signature, whether it needs the column or not

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import repeat
from operator import contains
from typing import Final

from app.dataplane.faults import Fault, shown
from app.dataplane.grammar import FALSE, TRUE, Refused, coerce_value, is_date
from app.domain.tables import Column, ColumnType

_Quick = Callable[[Sequence[bytes], Column], bool]

# The quick look


def _quick_text(values: Sequence[bytes], column: Column) -> bool:
    if column.max_length is not None and max(map(len, values)) > column.max_length:
        return False
    return column.format != "email" or _quick_email(values)


def _quick_email(values: Sequence[bytes]) -> bool:
    joined = b"\n".join(values)
    count = sum(map(contains, values, repeat(b"@")))
    return (
        joined.count(b"@") == count == len(values) - values.count(b"")
        and b"\n@" not in joined
        and b"@\n" not in joined
        and not joined.startswith(b"@")
        and not joined.endswith(b"@")
    )


def _quick_integer(values: Sequence[bytes], column: Column) -> bool:
    digits = 9 if column.type is ColumnType.INTEGER else 18
    return max(map(len, values)) <= digits and not b"".join(values).strip(b"0123456789")


_QUICK_BOOLEANS: Final = frozenset(word.encode() for word in TRUE | FALSE | {""})


def _quick_boolean(values: Sequence[bytes], column: Column) -> bool:
    return set(values) <= _QUICK_BOOLEANS


_UUID_CHARACTERS: Final = 36


def _quick_uuid(values: Sequence[bytes], column: Column) -> bool:
    joined = b"".join(values)
    if len(joined) != _UUID_CHARACTERS * (len(values) - values.count(b"")):
        return False
    if not set(map(len, values)) <= {0, _UUID_CHARACTERS}:
        return False
    for place in (8, 13, 18, 23):
        if joined[place::_UUID_CHARACTERS].strip(b"-"):
            return False
    digits = joined.replace(b"-", b"")
    if len(digits) * 9 != len(joined) * 8:
        return False
    try:
        binascii.unhexlify(digits)
    except binascii.Error:
        return False
    return True


_DIGITS: Final = b"0123456789"
_TIMESTAMP_LENGTHS: Final = frozenset({19, 20})
_DATE_LENGTH: Final = 10


def _quick_date(values: Sequence[bytes], column: Column) -> bool:
    present = [value for value in values if value]
    if not present:
        return True
    if set(map(len, present)) != {_DATE_LENGTH}:
        return False
    return _are_shaped(b"".join(present), _DATE_LENGTH, "dddd-dd-dd") and _are_dates(set(present))


def _quick_timestamp(values: Sequence[bytes], column: Column) -> bool:
    present = [value for value in values if value]
    if not present:
        return True
    lengths = set(map(len, present))
    length = lengths.pop()
    if lengths or length not in _TIMESTAMP_LENGTHS:
        return False
    joined = b"".join(present)
    if not _are_shaped(joined, length, "dddd-dd-dd?dd:5d:5dZ"[:length]) or joined[10::length].strip(b"T "):
        return False
    hours = {value[11:13] for value in present}
    return max(hours) <= b"23" and _are_dates({value[:10] for value in present})


def _are_shaped(joined: bytes, length: int, shape: str) -> bool:
    """Whether each run of ``length`` bytes has ``shape``: d a digit, 5 a digit up to 5, ? anything, else itself."""
    allowed = {"d": _DIGITS, "5": b"012345"}
    return not any(
        joined[place::length].strip(allowed.get(mark, mark.encode())) for place, mark in enumerate(shape) if mark != "?"
    )


def _are_dates(dates: set[bytes]) -> bool:
    return all(map(_is_ascii_date, dates))


@lru_cache(maxsize=8_192)  # a column of dates repeats them
def _is_ascii_date(value: bytes) -> bool:
    return is_date(value.decode("ascii"))


def _never(values: Sequence[bytes], column: Column) -> bool:
    return not any(values)


_QUICK: Final[Mapping[ColumnType, _Quick]] = {
    ColumnType.TEXT: _quick_text,
    ColumnType.INTEGER: _quick_integer,
    ColumnType.BIGINT: _quick_integer,
    ColumnType.NUMERIC: _quick_integer,
    ColumnType.DOUBLE: _quick_integer,
    ColumnType.BOOLEAN: _quick_boolean,
    ColumnType.DATE: _quick_date,
    ColumnType.TIMESTAMPTZ: _quick_timestamp,
    ColumnType.UUID: _quick_uuid,
    ColumnType.JSON: _never,
    ColumnType.TEXT_ARRAY: _never,
}


# The common forms, each a subset of what the grammar takes as it is

_DAY: Final = (
    "(?!0000)[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
"""Every day but those of leap years, which the grammar knows."""
_FORMS: Final[Mapping[ColumnType, str]] = {
    ColumnType.INTEGER: r"[0-9]{1,9}",
    ColumnType.BIGINT: r"[0-9]{1,18}",
    ColumnType.NUMERIC: r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?",
    ColumnType.DOUBLE: r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?",
    ColumnType.BOOLEAN: "true|false|t|f|1|0",
    ColumnType.DATE: _DAY,
    ColumnType.TIMESTAMPTZ: rf"{_DAY}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?Z?",
    ColumnType.UUID: r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
}


@cache
def _run(kind: ColumnType) -> re.Pattern[bytes] | None:
    """Values of a type's common form, or empty, each followed by NUL; ``None`` for a type that has none."""
    form = _FORMS.get(kind)
    return None if form is None else re.compile(rf"(?:(?:{form})?+\0)*+".encode())


def _uncommon_texts(values: Sequence[bytes], column: Column) -> Iterator[int]:
    if column.max_length is not None:
        most = column.max_length
        yield from (place for place, value in enumerate(values) if len(value) > most)
    if column.format == "email":
        found = list(map(bytes.count, values, repeat(b"@")))
        yield from (place for place, count in enumerate(found) if count != 1 and values[place])
        joined = b"\0".join((b"", *values, b""))
        if b"\0@" in joined or b"@\0" in joined:
            yield from (place for place, value in enumerate(values) if b"@" in (value[:1], value[-1:]))


def _uncommon(values: Sequence[bytes], column: Column) -> Iterator[int]:
    """The places of values that have another form than the common one."""
    if column.type is ColumnType.TEXT:
        yield from _uncommon_texts(values, column)
        return
    run = _run(column.type)
    if run is None:
        yield from (place for place, value in enumerate(values) if value)
        return
    joined = b"\0".join(values) + b"\0"  # no value holds a NUL
    place = at = 0
    while (end := run.match(joined, at).end()) < len(joined):  # type: ignore[union-attr]  # it matches nothing, too
        place += joined.count(b"\0", at, end)
        yield place
        place, at = place + 1, joined.index(b"\0", end) + 1


def coerce_column(values: list[bytes], column: Column, *, required: bool) -> tuple[list[bytes], dict[int, Fault]]:
    """A column's values as COPY is given them, before escaping, and the faults by place.

    Args:
        values: UTF-8 text without NUL; not changed.
        required: An empty value is a fault.
    """
    faults: dict[int, Fault] = {}
    if not values:
        return values, faults
    if required and b"" in values:
        missing = Fault("value.required", f"{column.name} is required, got an empty value", column.name)
        faults.update({place: missing for place, value in enumerate(values) if not value})
    if _QUICK[column.type](values, column):
        return values, faults
    coerced = list(values)
    for place in _uncommon(values, column):
        value = values[place].decode()
        try:
            coerced[place] = coerce_value(value, column).encode()
        except Refused as refused:
            came = refused.came or shown(value)
            faults[place] = Fault(refused.code, f"{column.name}: expected {refused.expected}, got {came}", column.name)
    return coerced, faults


def canonical(values: Sequence[bytes], kind: ColumnType) -> list[bytes] | None:
    """Key values such that two are equal exactly when Postgres finds them equal; ``None`` when we cannot tell."""
    if kind is ColumnType.TEXT:
        return list(values)
    if kind is ColumnType.UUID:
        joined = b"\n".join(values)
        return list(values) if joined == joined.lower() else joined.lower().split(b"\n")
    if kind in (ColumnType.INTEGER, ColumnType.BIGINT):
        return [b"%d" % int(value) for value in values]
    if kind is ColumnType.BOOLEAN:
        return [b"t" if value.decode() in TRUE else b"f" for value in values]
    return None


_NOT_PLAIN: Final = (b"\\", b"\t", b"\n", b"\r")


def escaped(values: list[bytes]) -> list[bytes]:
    """``values`` as COPY's text format has them: backslash, tab and line ends written with a backslash."""
    joined = b"\0".join(values)  # no value holds a NUL
    if not any(mark in joined for mark in _NOT_PLAIN):
        return values
    joined = joined.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return joined.split(b"\0")
