"""Patterns in plain English: "at 09:00:00 on Monday to Friday", "every 5 minutes of hours 9 to 17"."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from app.domain.calendars import fields
from app.domain.calendars.fields import Field, Values
from app.domain.calendars.pattern import Pattern

_MOST_TIMES: Final = 6
"""More times of the day than these are told by their fields."""


def words(pattern: Pattern) -> str:
    """What ``pattern`` means."""
    times = list(product(pattern.hour.numbers, pattern.minute.numbers, pattern.second.numbers))
    days = _days(pattern)
    if len(times) <= _MOST_TIMES:
        said = joined([f"{hour:02}:{minute:02}:{second:02}" for hour, minute, second in times])
        return f"at {said} {days or 'every day'}"
    return f"{_clock(pattern)} {days}".rstrip()


def joined(parts: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f" {last} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _clock(pattern: Pattern) -> str:
    said: list[str] = []
    for field, values in (
        (fields.SECOND, pattern.second),
        (fields.MINUTE, pattern.minute),
        (fields.HOUR, pattern.hour),
    ):
        on_the_minute = field is fields.SECOND and values.numbers == (0,)
        covered = bool(said) and said[-1].startswith("every ") and _is_all(field, values)
        if not on_the_minute and not covered:
            said.append(_counted(field, values))
    phrase = " of ".join(said)
    return phrase if phrase.startswith("every ") else f"at {phrase}"


def _counted(field: Field, values: Values) -> str:
    """``every minute``, ``every 5 minutes``, ``minute 30``, ``hours 9 to 17``."""
    if _is_all(field, values):
        return f"every {field.name}"
    numbers = values.numbers
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    if step > 1 and not (field.most + 1) % step and numbers == tuple(range(0, field.most + 1, step)):
        return f"every {step} {field.name}s"
    return f"{field.name}{'' if len(numbers) == 1 else 's'} {_listed(numbers)}"


def _days(pattern: Pattern) -> str:
    said = []
    for_numbers = "" if _is_all(fields.DAY_OF_MONTH, pattern.day_of_month) else _day_numbers(pattern.day_of_month)
    for_names = "" if _is_all(fields.DAY_OF_WEEK, pattern.day_of_week) else _day_names(pattern.day_of_week)
    if for_numbers and for_names:
        said.append(f"on {for_numbers} {'or' if pattern.either_day else 'if it is'} {for_names}")
    elif (for_numbers or for_names) and not pattern.either_day:
        said.append(f"on {for_numbers or for_names}")
    if not _is_all(fields.MONTH, pattern.month):
        said.append(f"in {_listed([number - 1 for number in pattern.month.numbers], fields.MONTHS)}")
    if not _is_all(fields.YEAR, pattern.year):
        said.append(f"in {_listed(pattern.year.numbers)}")
    return " ".join(said)


def _day_numbers(values: Values) -> str:
    numbers = [number for number in values.numbers if number != fields.LAST_DAY]
    said = [f"day{'' if len(numbers) == 1 else 's'} {_listed(numbers)}"] if numbers else []
    if len(numbers) < len(values.numbers):
        said.append("the last day")
    return f"{joined(said)} of the month"


def _day_names(values: Values) -> str:
    from_monday = (*fields.WEEKDAYS[1:], fields.WEEKDAYS[0])
    return _listed(sorted((number - 1) % 7 for number in values.numbers), from_monday)


def _is_all(field: Field, values: Values) -> bool:
    return len(set(values.numbers) - {fields.LAST_DAY}) == len(fields.every(field).numbers)


def _listed(numbers: Sequence[int], names: Sequence[str] | None = None) -> str:
    """The numbers, or the names they count, with neighbours drawn together: ``1, 3 to 5 and 9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        said = [names[number] if names else str(number) for number in run]
        parts.extend([f"{said[0]} to {said[-1]}"] if len(run) > 2 else said)
    return joined(parts)
