"""Which readings of a wall clock a cron line or a calendar means. Zones come later: see ``wall_clock``."""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final

from app.domain.calendars.fields import FIRST_YEAR, LAST_DAY, Values

_SECOND: Final = timedelta(seconds=1)
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BEFORE_ALL: Final = datetime(FIRST_YEAR, 1, 1) - _SECOND  # noqa: DTZ001 - a reading has no zone


@dataclass(frozen=True, slots=True)
class Pattern:
    """A reading matches when each of its fields is allowed.

    Args:
        either_day: One of day of month and day of week is enough, as in cron when neither starts with ``*``.
    """

    year: Values
    month: Values
    day_of_month: Values
    day_of_week: Values
    hour: Values
    minute: Values
    second: Values
    either_day: bool = field(default=False, kw_only=True)

    @property
    def is_fixed_time(self) -> bool:
        """Whether it names times of the day; with ``*`` as hour or minute it means every so often instead."""
        return not (self.hour.star or self.minute.star)

    @property
    def never(self) -> bool:
        """Whether no reading of any year matches, as with 31 February."""
        days = self.day_of_month.numbers
        if not self.either_day and min(days) > max(_LONGEST_MONTHS[month - 1] for month in self.month.numbers):
            return True
        return self.next_reading(_BEFORE_ALL) is None

    def next_reading(self, after: datetime) -> datetime | None:
        """The first matching reading, whole seconds without a zone, strictly after ``after``; ``None`` for never."""
        first = after.replace(microsecond=0) + _SECOND
        for day in self._days_from(first.date()):
            clock = self._time_from(first.time() if day == first.date() else time.min)
            if clock is not None:
                return datetime.combine(day, clock)
        return None

    def _days_from(self, first: date) -> Iterator[date]:
        for year in _from(self.year.numbers, first.year):
            for month in _from(self.month.numbers, first.month if year == first.year else 1):
                length = monthrange(year, month)[1]
                start = first.day if (year, month) == (first.year, first.month) else 1
                for number in self._candidates(start, length):
                    day = date(year, month, number)
                    if self._has(day, length):
                        yield day

    def _candidates(self, start: int, length: int) -> Iterable[int]:
        numbers = self.day_of_month.numbers
        if self.either_day or LAST_DAY in numbers:
            return range(start, length + 1)
        return (number for number in numbers if start <= number <= length)

    def _has(self, day: date, month_length: int) -> bool:
        wanted = self.day_of_month.numbers
        by_number = day.day in wanted or (day.day == month_length and LAST_DAY in wanted)
        if by_number == self.either_day:
            return by_number
        return day.isoweekday() % 7 in self.day_of_week.numbers

    def _time_from(self, first: time) -> time | None:
        for hour in _from(self.hour.numbers, first.hour):
            for minute in _from(self.minute.numbers, first.minute if hour == first.hour else 0):
                in_first_minute = (hour, minute) == (first.hour, first.minute)
                for second in _from(self.second.numbers, first.second if in_first_minute else 0):
                    return time(hour, minute, second)
        return None


def _from(numbers: tuple[int, ...], least: int) -> tuple[int, ...]:
    return numbers[bisect_left(numbers, least) :]
