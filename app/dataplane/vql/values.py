"""Values of a query: checked against their column's type, ready to be bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from app.domain.tables import ColumnType

MAX_TEXT_CHARACTERS: Final = 1_000
MAX_DIGITS: Final = 400
_BIGINT: Final = 2**63


@dataclass(frozen=True, slots=True)
class Bound:
    """A value that the driver binds, and the Postgres type it is cast to."""

    value: Any
    sql_type: str


class WrongValueError(ValueError):
    """The value does not fit; the text says what was expected."""


def text_value(value: object) -> str:
    """``value`` when it is text that Postgres can hold.

    Raises:
        WrongValueError: No text, over 1,000 characters, or with NUL or a lone surrogate in it.
    """
    if not isinstance(value, str):
        raise WrongValueError("text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise WrongValueError(f"text of at most {MAX_TEXT_CHARACTERS} characters")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise WrongValueError("text without NUL and lone surrogates")
    return value


def _text(value: object, _: bool) -> Bound:
    return Bound(text_value(value), "text")


def _integer(value: object, textual: bool) -> Bound:
    if textual and isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -_BIGINT <= value < _BIGINT:
        raise WrongValueError("an integer of at most 64 bits")
    return Bound(value, "bigint")


def _decimal(value: object, textual: bool) -> Bound:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and not textual):
        raise WrongValueError("a number")
    if isinstance(value, int) and value.bit_length() > MAX_DIGITS * 3:
        raise WrongValueError(f"a number of at most {MAX_DIGITS} digits")
    try:
        number = Decimal(str(value)[: MAX_DIGITS * 4])
    except InvalidOperation:
        raise WrongValueError("a number") from None
    if not number.is_finite() or abs(number.adjusted()) > MAX_DIGITS:
        raise WrongValueError(f"a finite number of at most {MAX_DIGITS} digits")
    return Bound(str(number), "numeric")


def _double(value: object, textual: bool) -> Bound:
    if textual and isinstance(value, str):
        try:
            return Bound(str(float(value[:50])), "double precision")
        except ValueError:
            raise WrongValueError("a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValueError("a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongValueError("a finite number")
    return Bound(repr(number), "double precision")


def _boolean(value: object, textual: bool) -> Bound:
    if textual and value in ("true", "false"):
        value = value == "true"
    if not isinstance(value, bool):
        raise WrongValueError("true or false")
    return Bound(value, "boolean")


def _date(value: object, _: bool) -> Bound:
    if isinstance(value, str) and len(value) == 10:
        try:
            return Bound(date.fromisoformat(value).isoformat(), "date")
        except ValueError:
            pass
    raise WrongValueError("a date such as 2026-01-31")


def _timestamp(value: object, _: bool) -> Bound:
    if isinstance(value, str) and len(value) <= 40:
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
            return Bound(instant.isoformat(), "timestamptz")
    raise WrongValueError("an ISO 8601 date or time such as 2026-01-31T12:00:00Z")


def _uuid(value: object, _: bool) -> Bound:
    if isinstance(value, str) and len(value) <= 45:
        try:
            return Bound(str(UUID(value)), "uuid")
        except ValueError:
            pass
    raise WrongValueError("a UUID")


_CHECKS: Final[Mapping[ColumnType, Callable[[object, bool], Bound]]] = {
    ColumnType.TEXT: _text,
    ColumnType.TEXT_ARRAY: _text,
    ColumnType.INTEGER: _integer,
    ColumnType.BIGINT: _integer,
    ColumnType.NUMERIC: _decimal,
    ColumnType.DOUBLE: _double,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMPTZ: _timestamp,
    ColumnType.UUID: _uuid,
}

KEYWORD_TYPES: Final = frozenset(_CHECKS)
"""Types whose values can be compared for equality; ``json`` cannot."""
ORDERED_TYPES: Final = KEYWORD_TYPES - {ColumnType.TEXT_ARRAY}
RANGE_TYPES: Final = frozenset(
    {
        ColumnType.INTEGER,
        ColumnType.BIGINT,
        ColumnType.NUMERIC,
        ColumnType.DOUBLE,
        ColumnType.DATE,
        ColumnType.TIMESTAMPTZ,
    }
)
TEXT_TYPES: Final = frozenset({ColumnType.TEXT, ColumnType.TEXT_ARRAY})


def equal_value(kind: ColumnType, value: object, *, textual: bool = False) -> Bound:
    """``value`` as one of a column of type ``kind`` (for arrays: as an element).

    Args:
        kind: One of ``KEYWORD_TYPES``.
        value: As JSON gave it.
        textual: Take numbers and booleans written as text too, as cursors may.

    Raises:
        WrongValueError: It does not fit.
    """
    return _CHECKS[kind](value, textual)


def range_value(kind: ColumnType, value: object) -> Bound:
    """``value`` as a bound for a column of type ``kind``, one of ``RANGE_TYPES``; integers compare with fractions too.

    Raises:
        WrongValueError: It does not fit.
    """
    if kind in (ColumnType.INTEGER, ColumnType.BIGINT) and isinstance(value, float) and not value.is_integer():
        return _decimal(value, False)
    return equal_value(kind, value)
