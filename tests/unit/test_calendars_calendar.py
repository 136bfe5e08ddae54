"""Calendars: what their fields mean, against the seed's example and against an evaluation second by second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.calendars import Calendar, parse
from tests.factories import WEEKDAYS_9_TO_17

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
CHANGES = {
    "America/New_York": [datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2027, 3, 14, 7, tzinfo=UTC)],
    "Europe/Zurich": [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)],
    "Australia/Lord_Howe": [datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)],
    "Africa/Cairo": [datetime(2026, 4, 23, 22, tzinfo=UTC), datetime(2026, 10, 29, 21, tzinfo=UTC)],
    "Asia/Kolkata": [datetime(2026, 5, 1, tzinfo=UTC)],
    "UTC": [datetime(2028, 2, 29, 12, tzinfo=UTC)],
}


def upcoming(calendar: dict[str, Any], count: int, after: datetime = NEW_YEAR, zone: str = "UTC") -> list[str]:
    found = parse({"calendars": calendar, "timezone": zone}).upcoming(after, count)
    return [instant.astimezone(ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M:%S") for instant in found]


@pytest.mark.feature("S3-35")
def test_the_weekday_example_fires_45_times_a_week() -> None:
    recurrence = parse({"calendars": [WEEKDAYS_9_TO_17], "timezone": "Europe/Zurich"})
    monday = datetime(2026, 6, 1, tzinfo=ZoneInfo("Europe/Zurich"))

    week = recurrence.due_between(monday, monday + timedelta(days=7), 1000)

    assert len(week) == 45
    assert week[0] == monday.replace(hour=9)


@pytest.mark.feature("S3-38")
def test_names_of_days_are_days_in_the_schedules_zone() -> None:
    calendar = {"dayOfWeek": {"start": "MONDAY", "end": "FRIDAY"}, "hour": 0, "month": "JUNE"}

    days = upcoming(calendar, 6, datetime(2026, 5, 31, 23, tzinfo=UTC), "Pacific/Auckland")

    assert [day[:3] for day in days] == ["Tue", "Wed", "Thu", "Fri", "Mon", "Tue"]
    assert {day[15:] for day in days} == {"00:00:00"}


@pytest.mark.feature("S3-36")
@pytest.mark.parametrize(
    ("calendar", "first_two"),
    [
        ({"year": 2030}, ["Tue 2030-01-01 00:00:00", "Wed 2030-01-02 00:00:00"]),
        ({"month": 7, "dayOfMonth": 4}, ["Sat 2026-07-04 00:00:00", "Sun 2027-07-04 00:00:00"]),
        ({"dayOfMonth": 31, "hour": 12}, ["Sat 2026-01-31 12:00:00", "Tue 2026-03-31 12:00:00"]),
        ({"dayOfMonth": "L"}, ["Sat 2026-01-31 00:00:00", "Sat 2026-02-28 00:00:00"]),
        ({"dayOfWeek": "SUN"}, ["Sun 2026-01-04 00:00:00", "Sun 2026-01-11 00:00:00"]),
        ({"hour": "*", "minute": 30}, ["Thu 2026-01-01 00:30:00", "Thu 2026-01-01 01:30:00"]),
        ({"second": [10, 40]}, ["Thu 2026-01-01 00:00:10", "Thu 2026-01-01 00:00:40"]),
        ({"dayOfMonth": 13, "dayOfWeek": "FRIDAY"}, ["Fri 2026-02-13 00:00:00", "Fri 2026-03-13 00:00:00"]),
        ({"month": 2, "day_of_month": 29, "day_of_week": 1}, ["Mon 2044-02-29 00:00:00", "Mon 2072-02-29 00:00:00"]),
    ],
)
def test_each_field_restricts(calendar: dict[str, Any], first_two: list[str]) -> None:
    assert upcoming(calendar, 2) == first_two


@pytest.mark.feature("S3-36")
def test_a_year_that_is_over_has_no_next_fire() -> None:
    recurrence = parse({"calendars": {"year": 2020, "hour": "*", "minute": "*", "second": "*"}})

    assert recurrence.next_after(NEW_YEAR) is None


def test_a_leap_day_decades_ahead_is_found() -> None:
    recurrence = parse({"calendars": {"year": 2096, "month": 2, "dayOfMonth": 29, "second": "*"}})

    assert recurrence.next_after(NEW_YEAR) == datetime(2096, 2, 29, tzinfo=UTC)


@pytest.mark.feature("S3-37")
@pytest.mark.parametrize(
    ("value", "hours"),
    [
        (9, [9]),
        (9.0, [9]),
        ("9", [9]),
        ({"start": 9, "end": 11}, [9, 10, 11]),
        ({"start": "9"}, [9]),
        ({"start": 8, "end": 20, "step": 6}, [8, 14, 20]),
        ({"start": 10, "step": 7}, [10, 17]),
        ({"step": 8}, [0, 8, 16]),
        ([{"start": 1, "end": 2}, 5, "20-22"], [1, 2, 5, 20, 21, 22]),
        ("*/12", [0, 12]),
        ("*", list(range(24))),
    ],
)
def test_a_field_takes_values_ranges_steps_and_lists(value: Any, hours: list[int]) -> None:
    recurrence = parse({"calendars": {"hour": value}})

    day = recurrence.due_between(NEW_YEAR - timedelta(seconds=1), NEW_YEAR + timedelta(hours=23), 100)

    assert [instant.hour for instant in day] == hours


def test_a_week_may_end_on_sunday() -> None:
    days = upcoming({"dayOfWeek": {"start": "FRIDAY", "end": "SUNDAY"}}, 4)

    assert [day[:3] for day in days] == ["Fri", "Sat", "Sun", "Fri"]


@pytest.mark.feature("S3-39")
def test_a_comment_is_kept_and_the_rule_is_told_without_one() -> None:
    with_comment = Calendar.parse(WEEKDAYS_9_TO_17, "/rules/calendars/0")

    assert with_comment.comment == WEEKDAYS_9_TO_17["comment"]
    assert Calendar.parse(with_comment.as_json(), "") == with_comment
    assert with_comment.words() == "at minute 0 of hours 9 to 17 on Monday to Friday"


def numbers(least: int, most: int) -> st.SearchStrategy[Any]:
    listed = st.lists(st.integers(least, most), min_size=1, max_size=6)
    return st.one_of(st.just("*"), listed, listed)


def allows(value: Any, number: int) -> bool:
    return value == "*" or number in value


def matches(calendar: dict[str, Any], reading: datetime) -> bool:
    return (
        allows(calendar["second"], reading.second)
        and allows(calendar["minute"], reading.minute)
        and allows(calendar["hour"], reading.hour)
        and allows(calendar["dayOfMonth"], reading.day)
        and allows(calendar["dayOfWeek"], reading.isoweekday())
    )


def fires_by_looking_at_each(
    calendar: dict[str, Any], zone: str, start: datetime, step_s: int, count: int
) -> list[datetime]:
    """The definition of docs/schedules.md, looked at for every instant of a window."""
    step = timedelta(seconds=step_s)
    instants = [start + number * step for number in range(count)]
    shown = [instant.astimezone(ZoneInfo(zone)) for instant in instants]
    by_elapsed = "*" in (calendar["hour"], calendar["minute"])
    found = []
    for (_, before), (instant, local) in pairwise(zip(instants, shown, strict=True)):
        reading = before.replace(tzinfo=None) + step
        skipped = []
        while reading < local.replace(tzinfo=None):
            skipped.append(reading)
            reading += step
        by_itself = matches(calendar, local) and (by_elapsed or not local.fold)
        if by_itself or (not by_elapsed and any(matches(calendar, reading) for reading in skipped)):
            found.append(instant)
    return found


@settings(max_examples=60)
@given(
    data=st.data(),
    calendar=st.fixed_dictionaries(
        {
            "dayOfMonth": st.one_of(st.just("*"), numbers(1, 31)),
            "dayOfWeek": st.one_of(st.just("*"), numbers(1, 7)),
            "hour": st.one_of(numbers(0, 23), numbers(0, 4)),
            "minute": numbers(0, 59),
        }
    ),
)
def test_over_a_day_it_fires_as_a_look_at_every_minute_says(data: st.DataObject, calendar: dict[str, Any]) -> None:
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    change = data.draw(st.sampled_from(CHANGES[zone]))
    start = change - timedelta(minutes=data.draw(st.integers(0, 1500)))
    expected = fires_by_looking_at_each({**calendar, "second": [0]}, zone, start, 60, 1600)

    fires = parse({"calendars": calendar, "timezone": zone}).due_between(start, start + timedelta(minutes=1599), 2000)

    assert list(fires) == expected


@settings(max_examples=40)
@given(
    data=st.data(),
    hour=st.one_of(st.just("*"), numbers(0, 4)),
    minute=st.one_of(st.just("*"), numbers(0, 59)),
    second=numbers(0, 59),
)
@example(data=None, hour="*", minute="*", second="*")
def test_over_minutes_it_fires_as_a_look_at_every_second_says(
    data: st.DataObject | None, hour: Any, minute: Any, second: Any
) -> None:
    zone = data.draw(st.sampled_from(sorted(CHANGES))) if data else "Europe/Zurich"
    change = CHANGES[zone][-1]
    start = change - timedelta(seconds=data.draw(st.integers(0, 900)) if data else 300)
    calendar = {"dayOfMonth": "*", "dayOfWeek": "*", "hour": hour, "minute": minute, "second": second}
    expected = fires_by_looking_at_each(calendar, zone, start, 1, 1000)

    fires = parse({"calendars": calendar, "timezone": zone}).due_between(start, start + timedelta(seconds=999), 2000)

    assert list(fires) == expected
