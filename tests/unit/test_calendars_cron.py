"""Cron lines, compared with cronsim, which behaves as Debian's cron does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.calendars import Cron, parse

ZONES = ("UTC", "America/New_York", "Europe/Zurich", "Asia/Kolkata")
CHANGES = (
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2027, 3, 14, 7, tzinfo=UTC),
    datetime(2027, 3, 28, 1, tzinfo=UTC),
)


def terms(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    # cronsim reads 5-5/2 as 5/2, Debian's cron as 5.
    ends = st.lists(number, min_size=2, max_size=2, unique=True).map(sorted)
    span = ends.map(lambda drawn: f"{drawn[0]}-{drawn[1]}")
    step = st.tuples(st.one_of(st.just("*"), span, number.map(str)), st.integers(1, most)).map(
        lambda parts: f"{parts[0]}/{parts[1]}"
    )
    term = st.one_of(number.map(str), span, step)
    listed = st.lists(term, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.just("*"), listed)


MINUTES_TO_WEEKDAYS = st.tuples(terms(0, 59), terms(0, 23), terms(1, 28), terms(1, 12), terms(0, 7)).map(" ".join)


def first_of_cronsim(line: str, zone: str, after: datetime, count: int) -> list[datetime]:
    simulated = CronSim(line, after.astimezone(ZoneInfo(zone)) if zone != "UTC" else after)
    return [instant.astimezone(UTC) for instant in islice(simulated, count)]


@settings(max_examples=150)
@given(line=MINUTES_TO_WEEKDAYS, minutes=st.integers(0, 20_000_000))
def test_five_fields_fire_as_cronsim_says(line: str, minutes: int) -> None:
    after = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    expected = first_of_cronsim(line, "UTC", after, 5)

    fires = parse({"cron": line}).upcoming(after, 5)

    assert list(fires) == expected


@settings(max_examples=100)
@given(second=terms(0, 59), line=MINUTES_TO_WEEKDAYS, seconds=st.integers(0, 10**9))
def test_six_fields_fire_as_cronsim_says(second: str, line: str, seconds: int) -> None:
    after = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    expected = first_of_cronsim(f"{second} {line}", "UTC", after, 5)

    fires = parse({"cron": f"{second} {line}"}).upcoming(after, 5)

    assert list(fires) == expected


@settings(max_examples=100)
@given(
    line=st.tuples(terms(0, 59), st.one_of(terms(0, 23), terms(0, 4))).map(
        lambda parts: f"{parts[0]} {parts[1]} * * *"
    ),
    zone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    minutes=st.integers(60, 1000),
)
def test_when_the_clocks_change_cron_fires_as_cronsim_says(
    line: str, zone: str, change: datetime, minutes: int
) -> None:
    after = change - timedelta(minutes=minutes)
    # What cronsim moves out of a gap it may say twice.
    expected = sorted(set(first_of_cronsim(line, zone, after, 100)))

    fires = parse({"cron": line, "timezone": zone}).upcoming(after, len(expected))

    assert list(fires) == expected


@pytest.mark.feature("S2-83")
def test_every_night_at_two_shows_its_five_next_times() -> None:
    recurrence = parse({"cron": "0 2 * * *"})

    fires = recurrence.upcoming(datetime(2026, 11, 20, 2, tzinfo=UTC), 5)

    assert fires == tuple(datetime(2026, 11, day, 2, tzinfo=UTC) for day in range(21, 26))
    assert recurrence.words() == "at 02:00:00 every day, UTC"


@pytest.mark.parametrize(
    ("line", "next_two"),
    [
        ("0 0 13 * FRI", ["2026-11-13", "2026-11-20"]),
        ("0 0 */2 * FRI", ["2026-11-13", "2026-11-27"]),
        ("0 0 L * *", ["2026-11-30", "2026-12-31"]),
        ("0 0 * * fri-sun", ["2026-11-13", "2026-11-14"]),
        ("0 0 1 january *", ["2027-01-01", "2028-01-01"]),
        ("@monthly", ["2026-12-01", "2027-01-01"]),
        ("@weekly", ["2026-11-15", "2026-11-22"]),
    ],
)
def test_days_are_chosen_as_cron_chooses_them(line: str, next_two: list[str]) -> None:
    fires = parse({"cron": line}).upcoming(datetime(2026, 11, 12, tzinfo=UTC), 2)

    assert [instant.date().isoformat() for instant in fires] == next_two


def test_a_line_is_kept_as_it_was_written() -> None:
    assert Cron.parse("*/5 * * * *", "").as_json() == "*/5 * * * *"
    assert Cron.parse({"expression": "@daily", "comment": "night"}, "").as_json() == {
        "expression": "@daily",
        "comment": "night",
    }
