"""Values of a column as something that has an order: numbers, instants or text.

What the grammar takes for its type can be read here, so that no rule overlooks a value that is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

from app.domain.tables import ColumnType

_T = ColumnType
FAMILY: Final = {
    _T.INTEGER: "number",
    _T.BIGINT: "number",
    _T.NUMERIC: "number",
    _T.DOUBLE: "number",
    _T.DATE: "instant",
    _T.TIMESTAMPTZ: "instant",
    _T.TEXT: "text",
    _T.UUID: "uuid",
}
"""Types whose values can be compared, and with which others."""
ORDERED: Final = frozenset({"number", "instant", "text"})
_KNOWN_INSTANTS: Final = 65_536


def readings(values: Sequence[bytes], kind: ColumnType) -> Sequence[Any]:
    """Each value as it compares with others of its family; ``None`` where it is empty or does not fit its type."""
    family = FAMILY[kind]
    if family == "number":
        return _numbers(values)
    if family == "instant":
        return [_instant(value.decode()) if value else None for value in values]
    if family == "uuid":
        return [re.sub(rb"[{}-]", b"", value).lower() or None for value in values]
    return [value or None for value in values]  # bytes of UTF-8 have the order of their code points


def _numbers(values: Sequence[bytes]) -> Sequence[Any]:
    try:
        return list(map(int, values))
    except ValueError:
        return [_number(value.decode()) if value else None for value in values]


def _number(value: str) -> Decimal | None:
    try:
        number = Decimal(value.strip())
    except InvalidOperation:
        return None
    return Decimal("Infinity") if number.is_nan() else number  # as Postgres orders it


_INSTANT: Final = re.compile(
    r"(?:([0-9]{4,6})([-/])([0-9]{1,2})\2([0-9]{1,2})|([0-9]{4})([0-9]{2})([0-9]{2}))"
    r"(?:(?:[Tt]| +)([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]*))?)?"
    r" ?(?:[A-Za-z]{1,3}|([+-])([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2}))?)?)?)?"
)
_INFINITIES: Final = {"infinity": float("inf"), "-infinity": float("-inf")}


@lru_cache(maxsize=_KNOWN_INSTANTS)
def _instant(value: str) -> float | None:
    """Microseconds since the year 0 in UTC; a day is its first."""
    bare = value.strip(" ")
    found = _INSTANT.fullmatch(bare)
    if found is None:
        return _INFINITIES.get(bare.lower())
    parts = found.groups()
    year, month, day = map(int, (parts[0] or parts[4], parts[2] or parts[5], parts[3] or parts[6]))
    hour, minute, second = (int(part or 0) for part in parts[7:10])
    zone = sum(int(part or 0) * size for part, size in zip(parts[12:15], (3600, 60, 1), strict=True))
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
    return (seconds - (-zone if parts[11] == "-" else zone)) * 1_000_000 + int(f"{parts[10] or '':0<6}"[:6])


def _days(year: int, month: int, day: int) -> int:
    """Days since the year 0 of the calendar that goes on for ever; a year begins in March here."""
    year, month = (year - 1, month + 12) if month <= 2 else (year, month)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day
