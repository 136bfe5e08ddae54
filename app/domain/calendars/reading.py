"""From a request's JSON to a ``Recurrence``; every fault is named and pointed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import cache, partial
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from app.domain.calendars.calendar import Calendar
from app.domain.calendars.cron import Cron
from app.domain.calendars.faults import Faults, members, shown
from app.domain.calendars.interval import Interval
from app.domain.calendars.moment import At, read_instant
from app.domain.calendars.recurrence import Recurrence, Rule
from app.domain.durations import duration_s

MOST_RULES: Final = 100
LONGEST_JITTER_S: Final = 86_400.0
_KNOWN: Final = ("intervals", "cron", "calendars", "at", "timezone", "start", "end", "jitter")


def parse(body: object, at: str = "/rules") -> Recurrence:
    """The recurrence that ``body`` describes; an object without rules is one that never fires by itself.

    Args:
        body: ``intervals``, ``cron``, ``calendars`` and ``at``, each a rule or a list of rules; ``timezone``,
            ``start``, ``end`` and ``jitter``. Times without an offset are readings of a clock in the zone.
        at: Where it stands in the request.

    Raises:
        InvalidRequestError: ``schedule.rules_invalid`` with one problem per fault, 50 at most.
    """
    faults = Faults()
    given = members(body, at, _KNOWN, faults)
    zone = _zone(given.get("timezone"), f"{at}/timezone", faults)
    readers: tuple[tuple[str, Callable[[object, str], Rule]], ...] = (
        ("intervals", Interval.parse),
        ("cron", Cron.parse),
        ("calendars", Calendar.parse),
        ("at", partial(At.parse, zone=zone)),
    )
    rules = [rule for name, read in readers for rule in _rules(given.get(name), f"{at}/{name}", read, faults)]
    if len(rules) > MOST_RULES:
        faults.add(at, f"expected at most {MOST_RULES} rules in all, got {len(rules)}")
    start = _limit(given, "start", at, zone, faults)
    end = _limit(given, "end", at, zone, faults)
    if start is not None and end is not None and end < start:
        faults.add(
            f"{at}/end", f"expected an end at or after the start, got {given['end']!r} before {given['start']!r}"
        )
    jitter_s = _jitter_s(given.get("jitter"), f"{at}/jitter", faults)
    faults.raise_if_any()
    return Recurrence(tuple(rules), zone.key, start, end, jitter_s)


def check_zone(name: object, at: str) -> ZoneInfo:
    """The IANA zone called ``name``.

    Raises:
        InvalidRequestError: There is none; the problem names the nearest.
    """
    faults = Faults()
    zone = _zone(name, at, faults)
    faults.raise_if_any()
    return zone


def _zone(name: object, at: str, faults: Faults) -> ZoneInfo:
    if name is None:
        return ZoneInfo("UTC")
    if isinstance(name, str) and name in _zones():
        return ZoneInfo(name)
    near = get_close_matches(name[:80], _zones(), 1) if isinstance(name, str) else []
    hint = f"; the nearest is {near[0]}" if near else ""
    faults.add(at, f"expected an IANA time zone like Europe/Zurich, got {shown(name)}{hint}")
    return ZoneInfo("UTC")


@cache
def _zones() -> frozenset[str]:
    # "localtime" is whatever the machine is set to.
    return frozenset(available_timezones() - {"localtime"})


def _rules(value: object, at: str, read: Callable[[object, str], Rule], faults: Faults) -> list[Rule]:
    if value is None:
        return []
    if not isinstance(value, list):
        found = [faults.reading(partial(read, value, at))]
    elif len(value) > MOST_RULES:
        faults.add(at, f"expected at most {MOST_RULES} rules, got {len(value)}")
        found = []
    else:
        found = [faults.reading(partial(read, item, f"{at}/{position}")) for position, item in enumerate(value)]
    return [rule for rule in found if rule is not None]


def _limit(given: Mapping[str, Any], name: str, at: str, zone: ZoneInfo, faults: Faults) -> datetime | None:
    value = given.get(name)
    return None if value is None else faults.reading(lambda: read_instant(value, f"{at}/{name}", zone))


def _jitter_s(value: object, at: str, faults: Faults) -> float:
    jitter_s = faults.reading(lambda: duration_s(0 if value is None else value, at)) or 0.0
    if jitter_s > LONGEST_JITTER_S:
        faults.add(at, f"expected a jitter of at most a day, got {shown(value)}")
    return round(jitter_s, 3)
