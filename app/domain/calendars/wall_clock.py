"""From readings of a wall clock to instants, through the hours that a change of the clocks skips or repeats.

As in Debian's cron. A rule with a fixed time of the day fires once on every day it names: a time that is skipped
fires at the end of the gap, a time that comes twice fires the first time. A rule with ``*`` as hour or minute follows
elapsed time: nothing fires for what is skipped, and what comes twice fires twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from app.domain.calendars.pattern import Pattern

_SECOND: Final = timedelta(seconds=1)


def next_instant(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first instant (UTC) strictly after ``after`` at which ``pattern`` fires in ``zone``; ``None`` for never."""
    if pattern.is_fixed_time:
        return _next_fixed(pattern, zone, after)
    return _next_elapsed(pattern, zone, after)


def instant_of(reading: datetime, zone: ZoneInfo) -> datetime:
    """When a clock in ``zone`` first shows ``reading``, or the end of the gap that skips it."""
    early, late = _passes(reading, zone)
    return _change(zone, late, early) if late < early else early


def _next_fixed(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime | None:
    reading = pattern.next_reading(_reading(after, zone))
    while reading is not None:
        instant = instant_of(reading, zone)
        # Readings of an hour's second pass lead back to the first, which is over.
        if instant > after:
            return instant
        reading = pattern.next_reading(reading)
    return None


def _next_elapsed(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime | None:
    reading = pattern.next_reading(_elapsed_from(pattern, zone, after))
    while reading is not None:
        early, late = _passes(reading, zone)
        if early <= late:
            return early if early > after else late
        reading = pattern.next_reading(_reading(_change(zone, late, early), zone) - _SECOND)
    return None


def _elapsed_from(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime:
    """The reading to look on from.

    It is that of ``after``, or the last before a second pass when ``after`` is in the first and all of that has fired.
    """
    reading = _reading(after, zone)
    early, late = _passes(reading, zone)
    if early < late and after < (change := _change(zone, early, late)):
        following = pattern.next_reading(reading)
        if following is None or _passes(following, zone)[0] >= change:
            return _reading(change, zone) - _SECOND
    return reading


def _reading(instant: datetime, zone: ZoneInfo) -> datetime:
    """What a clock in ``zone`` shows, whole seconds."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0, microsecond=0)


def _passes(reading: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The instants of ``reading`` by the offsets before and after a change.

    They are equal on every ordinary day; the first is earlier for what is repeated, later for what is skipped.
    """
    before = reading.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return before, reading.replace(tzinfo=zone, fold=1).astimezone(UTC)


def _change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first second after ``low`` and up to ``high`` with another offset than ``low`` has; ``high`` has another."""
    offset = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // 2 // _SECOND * _SECOND
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high
