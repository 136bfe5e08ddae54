"""The schedule of document 003, sentence by sentence, through the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.factories import WEEKDAYS_9_TO_17
from tests.integration.conftest import Client

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def made(member: Client, rules: dict[str, Any] | None) -> dict[str, Any]:
    body = {"name": "scraper", "template": {"type": "echo", "config": {"value": 1}}, "rules": rules}
    answer = member.post("/v1/schedules", body)
    assert answer.status_code == 201, answer.get_json()
    schedule: dict[str, Any] = answer.get_json()
    return schedule


def fires(member: Client, schedule: dict[str, Any], count: int) -> list[datetime]:
    preview = member.get(f"/v1/schedules/{schedule['id']}:preview?count={count}").get_json()
    return [datetime.fromisoformat(fire["at"]) for fire in preview["fires"]]


@pytest.mark.feature("S3-32")
def test_without_a_schedule_the_job_runs_on_triggers_alone(member: Client) -> None:
    schedule = made(member, None)

    job = member.post(f"/v1/schedules/{schedule['id']}:trigger").get_json()

    assert schedule["next_fire_at"] is None
    assert member.get(f"/v1/jobs/{job['id']}").get_json()["schedule_id"] == schedule["id"]


@pytest.mark.feature("S3-33", "S3-34")
@pytest.mark.parametrize(("period", "length"), [(3_600_000, timedelta(hours=1)), ("7 days", timedelta(days=7))])
def test_a_period_is_milliseconds_or_a_text_relative_to_the_unix_epoch(
    member: Client, period: Any, length: timedelta
) -> None:
    schedule = made(member, {"intervals": [{"every": period}]})

    instants = fires(member, schedule, 3)

    assert [instant - instants[0] for instant in instants] == [0 * length, length, 2 * length]
    assert (instants[0] - EPOCH) % length == timedelta()


@pytest.mark.feature("S3-35", "S3-39")
def test_the_calendar_of_the_document_fires_every_hour_of_a_working_day(member: Client) -> None:
    schedule = made(member, {"calendars": [WEEKDAYS_9_TO_17]})

    instants = fires(member, schedule, 45)

    assert schedule["rules"]["calendars"][0]["comment"] == WEEKDAYS_9_TO_17["comment"]
    assert {instant.weekday() for instant in instants} == {0, 1, 2, 3, 4}
    assert {instant.hour for instant in instants} == set(range(9, 18))
    assert instants[-1] - instants[0] < timedelta(days=7)


@pytest.mark.feature("S3-40")
def test_every_seven_days_and_the_first_of_every_month_fire_at_either(member: Client) -> None:
    first_of_month = {"dayOfMonth": 1, "hour": 0, "minute": 0}
    union = made(member, {"intervals": [{"every": "7d"}], "calendars": [first_of_month]})
    apart = [made(member, {"intervals": [{"every": "7d"}]}), made(member, {"calendars": [first_of_month]})]

    instants = fires(member, union, 20)

    either = {instant for schedule in apart for instant in fires(member, schedule, 20)}
    assert instants == sorted(either)[:20]
