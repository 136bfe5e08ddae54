"""From the text of a value to what COPY is given: Postgres's grammar, narrowed to what means the same everywhere.

The forms a rule takes are listed above it, and mean the same in every version of Postgres and under every setting; what
a rule lets pass and Postgres still refuses (an over-long index entry) the loader finds.

Empty text is NULL for every type.
"""

# ruff: noqa: ARG001 - every rule has one signature, whether it needs the column or not

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.domain.tables import Column, ColumnType

_Rule = Callable[[str, Column], str]


class Refused(Exception):  # noqa: N818 - it is an answer, caught a few lines on
    """A value does not fit its column; ``code`` and what was expected."""

    def __init__(self, code: str, expected: str, came: str | None = None) -> None:
        super().__init__(expected)
        self.code = code
        self.expected = expected
        self.came = came


# Text


def _text(value: str, column: Column) -> str:
    if column.max_length is not None and len(value) > column.max_length:
        raise Refused("value.too_long", f"at most {column.max_length} characters", f"{len(value)} characters")
    if column.format == "email":
        before, at, after = value.partition("@")
        if not (before and at and after) or "@" in after:
            raise Refused("value.email", "an e-mail address: one @ with something on both sides")
    return value


# Numbers: ASCII digits, a sign, spaces around; no 1_000, no 0x1F (which Postgres takes only from version 16 on)

_INTEGER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")
_NUMBER: Final = re.compile(
    r"[ \t\n\v\f\r]*([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?[ \t\n\v\f\r]*"
)
_SPECIAL_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*(?:nan|[+-]?inf(?:inity)?)[ \t\n\v\f\r]*", re.IGNORECASE)
_NUMERIC_DIGITS_BEFORE: Final = 131_072
_NUMERIC_DIGITS_AFTER: Final = 16_383


def _integer(value: str, column: Column) -> str:
    bits = 32 if column.type is ColumnType.INTEGER else 64
    found = _INTEGER.fullmatch(value)
    if found is None:
        raise Refused(f"value.{column.type.value}", "a whole number in plain digits")
    number = int(found[1]) if len(found[1]) <= 4_000 else 1 << 64
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise Refused(f"value.{column.type.value}", f"a whole number of {bits} bits")
    return found[1]


def _numeric(value: str, column: Column) -> str:
    found = _NUMBER.fullmatch(value)
    if found is None:
        if _SPECIAL_NUMBER.fullmatch(value):
            return value.strip()
        raise Refused("value.numeric", "a number such as 12.5 or 1e6")
    exponent = int(found[5]) if found[5] and len(found[5]) < 9 else (0 if not found[5] else 10**9)
    before, after = len((found[2] or "").lstrip("0")) + exponent, len(found[3] or found[4] or "") - exponent
    if exponent == 10**9 or before > _NUMERIC_DIGITS_BEFORE or after > _NUMERIC_DIGITS_AFTER:
        raise Refused(
            "value.numeric",
            f"a number of at most {_NUMERIC_DIGITS_BEFORE} digits before and {_NUMERIC_DIGITS_AFTER} after the point",
        )
    return value.strip()


def _double(value: str, column: Column) -> str:
    found = _NUMBER.fullmatch(value)
    if found is None:
        if _SPECIAL_NUMBER.fullmatch(value):
            return value.strip()
        raise Refused("value.double", "a number such as 12.5 or 1e6")
    number = float(value)
    mantissa = ((found[2] or "") + (found[3] or found[4] or "")).strip("0")
    if number in (float("inf"), float("-inf")) or (number == 0.0 and mantissa):
        raise Refused("value.double", "a number between 1e-307 and 1e308")
    return value.strip()


# Booleans: true, yes, on, 1 and the beginnings that Postgres takes

TRUE: Final = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
FALSE: Final = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})


def _boolean(value: str, column: Column) -> str:
    if value.strip().lower() not in TRUE | FALSE or not value.isascii():
        raise Refused("value.boolean", "true or false, yes or no, on or off, 1 or 0")
    return value.strip().lower()


# UUIDs: any case, with or without hyphens after groups of four, in braces or not

_UUID: Final = re.compile(r"[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}", re.IGNORECASE)


def _uuid(value: str, column: Column) -> str:
    bare = value[1:-1] if value.startswith("{") and value.endswith("}") else value
    if _UUID.fullmatch(bare) is None:
        raise Refused("value.uuid", "a UUID such as 123e4567-e89b-12d3-a456-426614174000")
    digits = bare.replace("-", "").lower()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# Dates and instants: ISO 8601, year first; the zone as Z, UTC or an offset; without one it is UTC

_DATE: Final = re.compile(r"([0-9]{4,6})([-/])([0-9]{1,2})\2([0-9]{1,2})|([0-9]{4})([0-9]{2})([0-9]{2})")
_TIME: Final = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]*)?)?"
    r" ?(?:[zZ]|UTC|GMT|utc|gmt|[+-]([0-9]{2})(?::?([0-9]{2})(?::?[0-9]{2})?)?)?"
)
_DAY_AND_TIME: Final = re.compile(r"([0-9/-]+)(?:(?:[Tt]| +)([0-9].*))?")
_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LAST_DATE_YEAR: Final = 294_276  # that of timestamptz; date reaches further, which nobody needs
_INFINITIES: Final = frozenset({"infinity", "-infinity"})
_MOST_ZONE_HOURS: Final = 15


def is_date(value: str) -> bool:
    """Whether it is a day of the calendar, year first."""
    found = _DATE.fullmatch(value)
    if found is None:
        return False
    year, month, day = (int(part) for part in (found[1] or found[5], found[3] or found[6], found[4] or found[7]))
    if not (1 <= year <= _LAST_DATE_YEAR and 1 <= month <= 12 and day >= 1):
        return False
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= _DAYS[month - 1] + leap


def _is_time(value: str) -> bool:
    found = _TIME.fullmatch(value)
    if found is None:
        return False
    hour, minute, second, zone_hours, zone_minutes = (int(part or 0) for part in found.groups())
    in_day = hour <= 23 or (hour == 24 and minute == second == 0 and "." not in value)
    return in_day and minute <= 59 and second <= 59 and zone_hours <= _MOST_ZONE_HOURS and zone_minutes <= 59


def _date(value: str, column: Column) -> str:
    bare = value.strip(" ")
    if not is_date(bare) and bare.lower() not in _INFINITIES:
        raise Refused("value.date", "a date such as 2024-05-31")
    return bare


def _timestamp(value: str, column: Column) -> str:
    bare = value.strip(" ")
    found = _DAY_AND_TIME.fullmatch(bare)
    fits = found is not None and is_date(found[1]) and (found[2] is None or _is_time(found[2]))
    if not fits and bare.lower() not in _INFINITIES:
        raise Refused("value.timestamptz", "a date and time such as 2024-05-31T12:30:00Z")
    return bare


# JSON


def _json(value: str, column: Column) -> str:
    try:
        parsed = json.loads(value, parse_constant=_no_constant, parse_int=str, parse_float=str)
        if "\\u" in value:
            plain = json.dumps(parsed, ensure_ascii=False)
            plain.encode()
            if "\\u0000" in plain:
                raise ValueError("NUL")
    except (ValueError, RecursionError):
        raise Refused("value.json", "a JSON value as jsonb takes it") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


# Arrays of text: [ … ] is JSON, { … } is Postgres's own form, anything else is a list between ; or, without one, ,

_ARRAY_LITERAL: Final = re.compile(
    r'\{(?:\s*(?:"(?:[^"\\]|\\.)*"|[^"{},\\\s][^"{},\\]*)\s*(?:,(?!\s*\})|(?=\})))*\}', re.S
)


def _array(value: str, column: Column) -> str:
    bare = value.strip()
    if bare.startswith("["):
        return _array_literal(_from_json_array(bare))
    if bare.startswith("{"):
        if _ARRAY_LITERAL.fullmatch(bare) is None:
            raise Refused("value.array", 'a list such as a; b or ["a", "b"] or {a,b}')
        return bare
    parts = bare.split(";" if ";" in bare else ",")
    return _array_literal([part.strip() for part in parts if part.strip()])


def _from_json_array(value: str) -> list[str | None]:
    try:
        parsed = json.loads(value, parse_constant=_no_constant, parse_int=str, parse_float=str)
        if "\\u" in value:
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused("value.array", "a JSON array of texts, since it begins with [") from None
    for item in parsed:
        if isinstance(item, list | dict) or (isinstance(item, str) and "\0" in item):
            raise Refused("value.array", "a JSON array of texts, numbers and booleans")
    return [
        item if item is None or isinstance(item, str) else json.dumps(item)  # true, false
        for item in parsed
    ]


def _array_literal(items: Sequence[str | None]) -> str:
    quoted = ("NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"


_RULES: Final[Mapping[ColumnType, _Rule]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: _integer,
    ColumnType.BIGINT: _integer,
    ColumnType.NUMERIC: _numeric,
    ColumnType.DOUBLE: _double,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMPTZ: _timestamp,
    ColumnType.UUID: _uuid,
    ColumnType.JSON: _json,
    ColumnType.TEXT_ARRAY: _array,
}


def coerce_value(value: str, column: Column) -> str:
    """One value as COPY is given it, before escaping; empty text stays empty and is NULL.

    Raises:
        Refused: It does not fit the column.
    """
    return _RULES[column.type](value, column) if value else value
