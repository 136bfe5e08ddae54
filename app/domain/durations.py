"""Durations as documents 002 and 003 write them: milliseconds, or a number with a unit (``7d``, ``1.5h``, ``30s``)."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from app.domain.errors import InvalidRequestError, Problem

_TEXT: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_LONGEST_TEXT: Final = 40
_UNITS_MS: Final = {
    1: ("", "ms", "msec", "msecs", "millisecond", "milliseconds"),
    1_000: ("s", "sec", "secs", "second", "seconds"),
    60_000: ("m", "min", "mins", "minute", "minutes"),
    3_600_000: ("h", "hr", "hrs", "hour", "hours"),
    86_400_000: ("d", "day", "days"),
    604_800_000: ("w", "week", "weeks"),
    31_557_600_000: ("y", "yr", "yrs", "year", "years"),
}
_MS: Final = {name: unit_ms for unit_ms, names in _UNITS_MS.items() for name in names}
_WRITTEN: Final = ((86_400_000, "d", "day"), (3_600_000, "h", "hour"), (60_000, "m", "minute"), (1_000, "s", "second"))
_JSON_TYPES: Final = {bool: "boolean", list: "array", dict: "object"}
_EXPECTED: Final = 'expected milliseconds or a text like "7d", "1.5h" or "30s"'
LONGEST_S: Final = 100 * 31_557_600.0
"""A hundred years."""


def duration_s(value: object, at: str) -> float:
    """Seconds of a duration; a number is milliseconds, and so is a text without a unit.

    Args:
        value: As JSON gave it. Units are those of the JavaScript package ``ms``: a year is 365.25 days.
        at: Where it stands in the request.

    Raises:
        InvalidRequestError: It is not a duration, not finite, negative, or longer than a hundred years.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise _refused(f"{_EXPECTED}, got {_shown(value)}", at)
    if not 0 <= seconds <= LONGEST_S:
        raise _refused(f"expected a duration from 0 to 100 years, got {_shown(value)}", at)
    return seconds


def duration_text(duration_s: float) -> str:
    """The duration with its largest whole unit (``604800.0`` is ``7d``), exact to the millisecond."""
    left_ms = round(duration_s * 1000)
    for unit_ms, letter, _ in _WRITTEN:
        if left_ms and left_ms % unit_ms == 0:
            return f"{left_ms // unit_ms}{letter}"
    return f"{left_ms}ms"


def duration_words(duration_s: float) -> str:
    """The duration in English: ``5 minutes``, ``1 hour 30 minutes``; exact to the millisecond."""
    left_ms = round(duration_s * 1000)
    parts = []
    for unit_ms, _, name in (*_WRITTEN, (1, "ms", "millisecond")):
        count, left_ms = divmod(left_ms, unit_ms)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def _seconds(value: object) -> float | None:
    """``None`` for what is no duration; what overflows is infinite."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value / 1000 if abs(value) < 10**18 else (math.inf if value > 0 else -math.inf)
    if isinstance(value, float):
        return None if math.isnan(value) else value / 1000
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return None
    match = _TEXT.fullmatch(value.strip())
    unit_ms = _MS.get(match[2].lower()) if match else None
    # Decimal, so that "1.1s" is the float nearest to 1.1 and not a product of two roundings.
    return float(Decimal(match[1]) * unit_ms / 1000) if match and unit_ms else None


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return "nothing" if value is None else f"a JSON {_JSON_TYPES.get(type(value), 'value')}"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of more than 18 digits"
    return repr(value)[:_LONGEST_TEXT]


def _refused(detail: str, at: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the duration cannot be used: {detail}", code="duration.invalid", problems=(Problem(at, detail),)
    )
