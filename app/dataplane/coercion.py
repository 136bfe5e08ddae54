"""Whole columns of values: which of them fit, and what COPY is given of them.

One pattern or a few calls on all values find those of another form than the common one of the column's type; only they
go through the grammar. A property of the tests holds both to the same answer.

Empty text is NULL for every type.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Final

from app.dataplane.faults import Fault, shown
from app.dataplane.grammar import FALSE, TRUE, Refused, coerce_value
from app.domain.tables import Column, ColumnType

# The common forms, each a subset of what the grammar takes as it is

_DAY: Final = (
    "(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_FORMS: Final[Mapping[ColumnType, str]] = {
    ColumnType.INTEGER: r"[0-9]{1,9}",
    ColumnType.BIGINT: r"[0-9]{1,18}",
    ColumnType.NUMERIC: r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?",
    ColumnType.DOUBLE: r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?",
    ColumnType.DATE: _DAY,
    ColumnType.TIMESTAMPTZ: rf"{_DAY}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?Z?",
    ColumnType.UUID: r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
}
_RUNS: Final = {kind: re.compile(rf"(?:(?:{form})?+\0)*+".encode()) for kind, form in _FORMS.items()}
"""Values of a type's common form, or empty, each followed by NUL."""
_BOOLEANS: Final = frozenset(word.encode() for word in TRUE | FALSE | {""})
_UUID_CHARACTERS: Final = 36


def _uncommon(values: Sequence[bytes], column: Column) -> Iterator[int]:
    """The places of values that have another form than the common one; some may come twice."""
    if column.type is ColumnType.TEXT:
        return _uncommon_texts(values, column)
    if column.type is ColumnType.BOOLEAN:
        return (place for place, value in enumerate(values) if value not in _BOOLEANS)
    run = _RUNS.get(column.type)
    if run is None:
        return (place for place, value in enumerate(values) if value)
    if column.type is ColumnType.UUID and _are_uuids(values):
        return iter(())
    return _between(run, values)


def _uncommon_texts(values: Sequence[bytes], column: Column) -> Iterator[int]:
    most = column.max_length
    if most is not None and max(map(len, values)) > most:
        yield from (place for place, value in enumerate(values) if len(value) > most)
    if column.format == "email":
        found = list(map(bytes.count, values, repeat(b"@")))
        if found.count(1) < len(values):
            yield from (place for place, count in enumerate(found) if count != 1 and values[place])
        joined = b"\0".join((b"", *values, b""))
        if b"\0@" in joined or b"@\0" in joined:
            yield from (place for place, value in enumerate(values) if b"@" in (value[:1], value[-1:]))


def _between(run: re.Pattern[bytes], values: Sequence[bytes]) -> Iterator[int]:
    """The places between runs of values of the common form."""
    joined = b"\0".join(values) + b"\0"  # no value holds a NUL
    place = at = 0
    while (end := run.match(joined, at).end()) < len(joined):  # type: ignore[union-attr]  # it matches nothing, too
        place += joined.count(b"\0", at, end)
        yield place
        place, at = place + 1, joined.index(b"\0", end) + 1


def _are_uuids(values: Sequence[bytes]) -> bool:
    """Whether all are, or empty: a few calls that take two thirds of the pattern's time."""
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
    uncommon = list(_uncommon(values, column))
    if not uncommon:
        return values, faults
    coerced = list(values)
    for place in uncommon:
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
