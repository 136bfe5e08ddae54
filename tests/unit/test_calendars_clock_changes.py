"""The hours that a change of the clocks skips or repeats: New York, 1 November 2026 and 14 March 2027."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.domain.calendars import parse

NEW_YORK = "America/New_York"
LONG_DAY = datetime(2026, 11, 1, tzinfo=ZoneInfo(NEW_YORK))
SHORT_DAY = datetime(2027, 3, 14, tzinfo=ZoneInfo(NEW_YORK))


def on_the_day(rules: dict[str, Any], day: datetime) -> list[str]:
    """The fires of a whole local day, as its clock shows them with the offset."""
    midnight = day.astimezone(UTC) - timedelta(seconds=1)
    next_midnight = day + timedelta(days=1)
    fires = parse({**rules, "timezone": NEW_YORK}).due_between(midnight, next_midnight - timedelta(seconds=1), 5000)
    return [instant.astimezone(ZoneInfo(NEW_YORK)).strftime("%H:%M%z") for instant in fires]


@pytest.mark.feature("S2-84")
@pytest.mark.parametrize(
    "rules", [{"cron": "0 * * * *"}, {"calendars": {"hour": "*"}}, {"cron": "0 0 * * * *"}, {"intervals": "1h"}]
)
def test_an_hourly_rule_fires_25_times_on_the_long_day_and_23_on_the_short(rules: dict[str, Any]) -> None:
    assert len(on_the_day(rules, LONG_DAY)) == 25
    assert on_the_day(rules, LONG_DAY)[:4] == ["00:00-0400", "01:00-0400", "01:00-0500", "02:00-0500"]
    assert len(on_the_day(rules, SHORT_DAY)) == 23


@pytest.mark.feature("S2-84")
@pytest.mark.parametrize(
    "rules", [{"cron": "30 2 * * *"}, {"cron": "0 30 2 * * *"}, {"calendars": {"hour": 2, "minute": 30}}]
)
def test_a_time_that_is_skipped_fires_once_at_the_end_of_the_gap(rules: dict[str, Any]) -> None:
    assert on_the_day(rules, SHORT_DAY) == ["03:00-0400"]
    assert on_the_day(rules, LONG_DAY) == ["02:30-0500"]
    assert on_the_day(rules, SHORT_DAY + timedelta(days=1)) == ["02:30-0400"]


@pytest.mark.feature("S2-84")
@pytest.mark.parametrize("rules", [{"cron": "30 1 * * *"}, {"calendars": {"hour": 1, "minute": 30}}])
def test_a_time_that_comes_twice_fires_the_first_time_only(rules: dict[str, Any]) -> None:
    assert on_the_day(rules, LONG_DAY) == ["01:30-0400"]


@pytest.mark.parametrize("minute", [0, 30, 59])
def test_in_the_second_pass_nothing_of_the_first_comes_back(minute: int) -> None:
    recurrence = parse({"cron": "0-59 1,2 * * *", "timezone": NEW_YORK})
    second_pass = datetime(2026, 11, 1, 6, tzinfo=UTC)

    assert recurrence.next_after(second_pass + timedelta(minutes=minute)) == second_pass + timedelta(hours=1)


def test_several_skipped_times_and_the_gaps_end_are_one_fire() -> None:
    rules = {"cron": "0,15,45 2,3 * * *"}

    assert on_the_day(rules, SHORT_DAY) == ["03:00-0400", "03:15-0400", "03:45-0400"]


def test_every_quarter_of_the_skipped_hour_is_left_out() -> None:
    assert on_the_day({"cron": "*/15 2 * * *"}, SHORT_DAY) == []


def test_every_half_hour_fires_through_both_passes() -> None:
    rules = {"calendars": {"hour": 1, "minute": {"step": 30}}}

    assert on_the_day(rules, LONG_DAY) == ["01:00-0400", "01:30-0400", "01:00-0500", "01:30-0500"]


@pytest.mark.parametrize("minute", range(0, 120, 7))
def test_between_the_passes_the_next_fire_is_the_nearest(minute: int) -> None:
    recurrence = parse({"cron": "* * * * *", "timezone": NEW_YORK})
    after = datetime(2026, 11, 1, 5, tzinfo=UTC) + timedelta(minutes=minute)

    assert recurrence.next_after(after) == after + timedelta(minutes=1)
    assert recurrence.next_after(after + timedelta(microseconds=1)) == after + timedelta(minutes=1)


def test_a_day_that_a_zone_left_out_fires_when_it_is_over() -> None:
    recurrence = parse({"cron": "0 9 * * *", "timezone": "Pacific/Apia"})

    fires = recurrence.upcoming(datetime(2011, 12, 29, tzinfo=UTC), 3)

    assert fires == (
        datetime(2011, 12, 29, 19, tzinfo=UTC),
        datetime(2011, 12, 30, 10, tzinfo=UTC),
        datetime(2011, 12, 30, 19, tzinfo=UTC),
    )


def test_a_time_without_an_offset_is_the_zones() -> None:
    rules = {"at": ["2026-11-01T01:30", "2027-03-14T02:30", "2027-06-01T12:00"], "timezone": NEW_YORK}

    fires = parse(rules).upcoming(datetime(2026, 1, 1, tzinfo=UTC), 3)

    assert fires == (
        datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
        datetime(2027, 3, 14, 7, tzinfo=UTC),
        datetime(2027, 6, 1, 16, tzinfo=UTC),
    )
