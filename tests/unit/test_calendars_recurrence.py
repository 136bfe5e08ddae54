"""The union of rules: each instant once, in order, between start and end, spread by jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.calendars import parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)

INSTANTS = st.timedeltas(timedelta(), timedelta(days=730)).map(lambda passed: datetime(2026, 1, 1, tzinfo=UTC) + passed)
INTERVALS = st.tuples(st.integers(1, 600), st.integers(0, 10**6)).map(
    lambda drawn: {"every": drawn[0] * 60_000, "offset": drawn[1] % (drawn[0] * 60_000)}
)
CRON = st.sampled_from(
    ["0 * * * *", "*/7 1-3 * * *", "30 2 * * *", "0 0 29 2 *", "15 30 1 * * *", "0 0 13 * FRI", "30 1 * * SUN"]
)
CALENDARS = st.sampled_from(
    [
        {"hour": {"start": 1, "end": 3}, "minute": {"step": 20}},
        {"dayOfWeek": ["SATURDAY", "SUNDAY"], "hour": [1, 2, 3], "minute": [0, 30]},
        {"year": 2027, "month": 2, "hour": "*"},
        {"dayOfMonth": "L", "second": [0, 59]},
    ]
)
AT = INSTANTS.map(lambda instant: instant.replace(tzinfo=None).isoformat())
RULES = st.fixed_dictionaries(
    {
        "intervals": st.lists(INTERVALS, max_size=2),
        "cron": st.lists(CRON, max_size=2),
        "calendars": st.lists(CALENDARS, max_size=2),
        "at": st.lists(AT, max_size=2),
        "timezone": st.sampled_from(["UTC", "America/New_York", "Europe/Zurich"]),
    }
)


def parts_of(rules: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = ("intervals", "cron", "calendars", "at")
    return [{kind: rule, "timezone": rules["timezone"]} for kind in kinds for rule in rules[kind]]


@settings(max_examples=50)
@given(rules=RULES, after=INSTANTS)
def test_each_next_fire_is_later_than_the_one_before(rules: dict[str, Any], after: datetime) -> None:
    recurrence = parse(rules)

    fires = [after]
    while len(fires) < 12 and (following := recurrence.next_after(fires[-1])) is not None:
        fires.append(following)

    assert all(later > earlier for earlier, later in pairwise(fires))
    assert recurrence.upcoming(after, 11) == tuple(fires[1:])


@settings(max_examples=50)
@given(rules=RULES, after=INSTANTS, minutes=st.integers(0, 5000), limit=st.integers(0, 40))
def test_what_is_due_is_what_next_fires_lead_through(
    rules: dict[str, Any], after: datetime, minutes: int, limit: int
) -> None:
    recurrence = parse(rules)
    until = after + timedelta(minutes=minutes)

    expected = []
    following = recurrence.next_after(after)
    while following is not None and following <= until and len(expected) < limit:
        expected.append(following)
        following = recurrence.next_after(following)

    assert list(recurrence.due_between(after, until, limit)) == expected


@pytest.mark.feature("S3-40")
@settings(max_examples=50)
@given(rules=RULES, after=INSTANTS)
def test_the_union_is_the_sorted_set_of_its_parts(rules: dict[str, Any], after: datetime) -> None:
    until = after + timedelta(days=1)
    expected = {fire for part in parts_of(rules) for fire in parse(part).due_between(after, until, 5000)}

    fires = parse(rules).due_between(after, until, 5000)

    assert list(fires) == sorted(expected)


@settings(max_examples=50)
@given(rules=RULES)
def test_rules_survive_storage(rules: dict[str, Any]) -> None:
    recurrence = parse({**rules, "start": "2026-01-01", "end": "2027-01-01T00:00:00.5Z", "jitter": 1500})

    assert parse(recurrence.as_json()) == recurrence


@pytest.mark.feature("S3-33", "S3-34")
@given(every_ms=st.integers(1000, 10**10), after=INSTANTS)
def test_an_interval_fires_at_the_first_multiple_since_the_epoch(every_ms: int, after: datetime) -> None:
    following = parse({"intervals": every_ms}).next_after(after)

    assert following is not None
    assert (following - EPOCH) % timedelta(milliseconds=every_ms) == timedelta()
    assert timedelta() < following - after <= timedelta(milliseconds=every_ms)


@pytest.mark.feature("S3-33")
@pytest.mark.parametrize("every", ["7d", 604_800_000, "1w", "168 hours"])
def test_seven_days_are_seven_days_however_written(every: Any) -> None:
    fires = parse({"intervals": {"every": every}}).upcoming(EPOCH + timedelta(days=1), 3)

    assert fires == (EPOCH + WEEK, EPOCH + 2 * WEEK, EPOCH + 3 * WEEK)


def test_an_offset_shifts_every_fire() -> None:
    fires = parse({"intervals": {"every": "1h", "offset": "90s"}}).upcoming(EPOCH, 2)

    assert fires == (EPOCH + timedelta(seconds=90), EPOCH + timedelta(hours=1, seconds=90))


@pytest.mark.feature("S3-40")
def test_an_instant_of_two_rules_is_one_fire() -> None:
    recurrence = parse({"intervals": "7d", "calendars": {"dayOfMonth": 1}})

    fires = recurrence.due_between(datetime(2026, 9, 30, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), 100)

    # 1 October 2026 is a Thursday, as the epoch was.
    assert [fire.strftime("%m-%d") for fire in fires] == ["10-01", "10-08", "10-15", "10-22", "10-29", "11-01"]


def test_start_and_end_are_included_and_nothing_fires_outside() -> None:
    recurrence = parse({"cron": "0 * * * *", "start": "2026-05-01T10:00:00Z", "end": "2026-05-01T12:00:00Z"})

    fires = recurrence.upcoming(EPOCH, 10)

    assert [fire.hour for fire in fires] == [10, 11, 12]
    assert recurrence.next_after(fires[-1]) is None


@pytest.mark.feature("S3-32")
def test_without_rules_nothing_ever_fires() -> None:
    recurrence = parse({})

    assert recurrence.next_after(EPOCH) is None
    assert recurrence.words() == "on demand"


@pytest.mark.parametrize("after", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_the_ends_of_the_calendar_are_no_error(after: datetime) -> None:
    recurrence = parse({"cron": "0 0 * * *", "intervals": "1d", "timezone": "Pacific/Auckland"})

    following = recurrence.next_after(after)

    assert following is None or following == EPOCH


@given(schedule=st.uuids().map(str), jitter_ms=st.integers(1, 86_400_000), after=INSTANTS)
def test_jitter_is_the_same_every_time_and_stays_before_the_next_fire(
    schedule: str, jitter_ms: int, after: datetime
) -> None:
    recurrence = parse({"intervals": "1h", "jitter": jitter_ms})
    fire, following = recurrence.upcoming(after, 2)

    begin = recurrence.begin_of(schedule, fire)

    assert fire <= begin < min(fire + timedelta(milliseconds=jitter_ms), following)
    assert parse(recurrence.as_json()).begin_of(schedule, fire) == begin


def test_jitter_spreads_schedules_over_its_whole_width() -> None:
    recurrence = parse({"intervals": "1h", "jitter": "10m"})
    fire = EPOCH + timedelta(hours=1)

    minutes = {(recurrence.begin_of(str(number), fire) - fire) // timedelta(minutes=1) for number in range(300)}

    assert minutes == set(range(10))


def test_the_last_fire_may_begin_as_late_as_the_jitter_allows() -> None:
    recurrence = parse({"at": "2026-12-01", "jitter": "1h"})
    fire = datetime(2026, 12, 1, tzinfo=UTC)

    delays = [recurrence.begin_of(str(number), fire) - fire for number in range(300)]

    assert timedelta(minutes=55) < max(delays) < timedelta(hours=1)


def test_without_jitter_a_fire_begins_at_its_instant() -> None:
    assert parse({"intervals": "1h"}).begin_of("any", EPOCH) == EPOCH


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"intervals": "5m"}, "every 5 minutes"),
        ({"intervals": "1d"}, "every day"),
        ({"intervals": "90m"}, "every 1 hour 30 minutes"),
        ({"intervals": {"every": "1h", "offset": 5000}}, "every hour, 5 seconds later than counted from 1970"),
        ({"cron": "0 9 * * MON-FRI", "timezone": "Europe/Zurich"}, "at 09:00:00 on Monday to Friday, Europe/Zurich"),
        ({"cron": "*/5 * * * *"}, "every 5 minutes, UTC"),
        ({"cron": "* * * * * *"}, "every second, UTC"),
        ({"cron": "*/10 30 * * * *"}, "every 10 seconds of minute 30 of every hour, UTC"),
        ({"cron": "7 * * * *"}, "at minute 7 of every hour, UTC"),
        ({"cron": "0 0 13 * FRI"}, "at 00:00:00 on day 13 of the month or Friday, UTC"),
        (
            {"cron": "0 0 1,L 1-3,12 *"},
            "at 00:00:00 on day 1 and the last day of the month in January to March and December, UTC",
        ),
        ({"calendars": {"hour": [9, 17], "year": 2027}}, "at 09:00:00 and 17:00:00 in 2027, UTC"),
        ({"calendars": {"hour": "9-17", "minute": "*/20"}}, "every 20 minutes of hours 9 to 17, UTC"),
        (
            {"calendars": {"dayOfMonth": 1, "dayOfWeek": 5}},
            "at 00:00:00 on day 1 of the month if it is Friday, UTC",
        ),
        ({"at": "2026-12-01T09:00:00+01:00"}, "once at 2026-12-01T08:00:00Z"),
        (
            {"intervals": "1h", "at": "2026-12-01", "start": "2026-01-01", "end": "2027-01-01", "jitter": "30s"},
            (
                "every hour and also once at 2026-12-01T00:00:00Z, from 2026-01-01T00:00:00Z on, "
                "until 2027-01-01T00:00:00Z, up to 30 seconds later"
            ),
        ),
    ],
)
def test_rules_are_told_in_a_sentence(rules: dict[str, Any], words: str) -> None:
    assert parse(rules).words() == words
