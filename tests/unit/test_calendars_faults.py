"""Rules that cannot be used are refused with the JSON pointer of each fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.calendars import check_zone, parse
from app.domain.durations import duration_s, duration_text, duration_words
from app.domain.errors import InvalidRequestError


def pointers(rules: Any) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        parse(rules)
    assert caught.value.code == "schedule.rules_invalid"
    return [problem.pointer for problem in caught.value.problems]


@pytest.mark.feature("S3-37")
@pytest.mark.parametrize(
    ("rules", "pointer"),
    [
        ([], "/rules"),
        ({"interval": "7d"}, "/rules/interval"),
        ({"a/b~": 1}, "/rules/a~1b~0"),
        ({"intervals": [{"every": 0}]}, "/rules/intervals/0/every"),
        ({"intervals": [{"every": "999ms"}]}, "/rules/intervals/0/every"),
        ({"intervals": ["5x"]}, "/rules/intervals/0"),
        ({"intervals": {"offset": "1m"}}, "/rules/intervals/every"),
        ({"intervals": [{"every": "1m", "offset": "60s"}]}, "/rules/intervals/0/offset"),
        ({"intervals": [{"every": "1m", "offset": -1}]}, "/rules/intervals/0/offset"),
        ({"cron": ["0 0 0 1 1 * 2027"]}, "/rules/cron/0"),
        ({"cron": ["* * * *"]}, "/rules/cron/0"),
        ({"cron": "0 0 31 2 *"}, "/rules/cron"),
        ({"cron": "60 * * * *"}, "/rules/cron"),
        ({"cron": "*/0 * * * *"}, "/rules/cron"),
        ({"cron": "*/x * * * *"}, "/rules/cron"),
        ({"cron": "5-1 * * * *"}, "/rules/cron"),
        ({"cron": "@reboot"}, "/rules/cron"),
        ({"cron": [{"expression": 5}]}, "/rules/cron/0/expression"),
        ({"cron": [{"expression": "@daily", "comment": 5}]}, "/rules/cron/0/comment"),
        ({"cron": [{"expression": "@daily", "comment": "\0"}]}, "/rules/cron/0/comment"),
        ({"calendars": ["daily"]}, "/rules/calendars/0"),
        ({"calendars": [{"month": 2, "dayOfMonth": 31}]}, "/rules/calendars/0/dayOfMonth"),
        ({"calendars": [{"year": 2027, "month": 2, "dayOfMonth": 29}]}, "/rules/calendars/0/dayOfMonth"),
        ({"calendars": [{"hour": {"start": 17, "end": 9}}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"dayOfWeek": {"start": "SATURDAY", "end": "MONDAY"}}]}, "/rules/calendars/0/dayOfWeek"),
        ({"calendars": [{"hour": [1, 24]}]}, "/rules/calendars/0/hour/1"),
        ({"calendars": [{"hour": []}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": {}}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": True}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": 1.5}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": {"step": 0}}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": {"step": "2"}}]}, "/rules/calendars/0/hour"),
        ({"calendars": [{"hour": {"start": 1, "to": 2}}]}, "/rules/calendars/0/hour/to"),
        ({"calendars": [{"dayOfMonth": {"start": 1, "end": "L"}}]}, "/rules/calendars/0/dayOfMonth"),
        ({"calendars": [{"dayOfMonth": 1, "day_of_month": 1}]}, "/rules/calendars/0/day_of_month"),
        ({"calendars": [{"year": 10**50}]}, "/rules/calendars/0/year"),
        ({"at": "tomorrow"}, "/rules/at"),
        ({"at": [1767225600]}, "/rules/at/0"),
        ({"at": [{"at": "2500-01-01"}]}, "/rules/at/0/at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "/rules/at"),
        ({"timezone": "Europe/Zurch"}, "/rules/timezone"),
        ({"timezone": "../etc/passwd"}, "/rules/timezone"),
        ({"timezone": "localtime"}, "/rules/timezone"),
        ({"timezone": "America"}, "/rules/timezone"),
        ({"timezone": 1}, "/rules/timezone"),
        ({"start": "2027-01-01", "end": "2026-01-01"}, "/rules/end"),
        ({"start": "never"}, "/rules/start"),
        ({"jitter": "25h"}, "/rules/jitter"),
        ({"jitter": "much"}, "/rules/jitter"),
        ({"at": ["2026-01-01"] * 101}, "/rules/at"),
        ({"at": ["2026-01-01"] * 60, "cron": ["@daily"] * 60}, "/rules"),
    ],
)
def test_a_fault_is_pointed_at(rules: Any, pointer: str) -> None:
    assert pointers(rules) == [pointer]


def test_every_fault_is_named_at_once() -> None:
    rules = {"intervals": [{"every": 0, "unit": "s"}, "1m"], "cron": ["x * * * y"], "timezone": "Mars", "end": "?"}

    assert sorted(pointers(rules)) == [
        "/rules/cron/0",
        "/rules/cron/0",
        "/rules/end",
        "/rules/intervals/0/every",
        "/rules/intervals/0/unit",
        "/rules/timezone",
    ]


def test_a_flood_of_faults_is_cut() -> None:
    assert len(pointers({f"unknown{number}": 1 for number in range(200)})) == 50


def test_a_mistyped_zone_is_told_the_nearest() -> None:
    with pytest.raises(InvalidRequestError, match="the nearest is Europe/Zurich"):
        check_zone("Europe/Zurch", "/timezone")


def test_without_a_zone_it_is_utc() -> None:
    assert check_zone(None, "/timezone").key == "UTC"


def test_a_fault_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(InvalidRequestError, match="expected hour from 0 to 23, got 24"):
        parse({"calendars": {"hour": 24}})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("0129*/-,LdMON:Z. \0", max_size=8)
    | st.sampled_from(["*", "MON", "L"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["start", "end", "step", "every", "hour", "comment", "at"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["intervals", "cron", "calendars", "at", "timezone", "start", "end", "jitter"]), JSON
    )
)
def test_no_json_is_answered_with_anything_but_rules_or_faults(rules: dict[str, Any]) -> None:
    try:
        read = parse(rules)
    except InvalidRequestError as error:
        refused = error.problems
    else:
        refused = ()

    assert all(problem.pointer.startswith("/rules/") for problem in refused)
    assert refused or parse(read.as_json()) == read


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 0.3),
        (0, 0.0),
        (1.5, 0.0015),
        ("300", 0.3),
        ("7d", 604_800.0),
        ("1.5h", 5400.0),
        ("30s", 30.0),
        (".5 MIN", 30.0),
        ("2 weeks", 1_209_600.0),
        ("1y", 31_557_600.0),
        ("1.1s", 1.1),
    ],
)
def test_durations_are_milliseconds_or_a_number_with_a_unit(value: Any, seconds: float) -> None:
    assert duration_s(value, "/wait") == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("5x", "", "d", "-1s", "1h30m", "1e3s", "nan", "١s", "9" * 400, "101y"),
        *(10**400, -1, -(10**400), float("nan"), float("inf"), float("-inf")),
        *(True, None, [1], {"s": 1}),
    ],
)
def test_what_is_no_duration_is_refused_where_it_stands(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        duration_s(value, "/wait")

    assert [problem.pointer for problem in caught.value.problems] == ["/wait"]


@given(st.integers(0, 10**12))
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    assert duration_s(duration_text(milliseconds / 1000), "") == milliseconds / 1000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (90, "1 minute 30 seconds"), (86_400, "1 day"), (1.25, "1 second 250 milliseconds")],
)
def test_durations_are_told_in_words(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words
