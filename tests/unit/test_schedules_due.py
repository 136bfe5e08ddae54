"""What is due of a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from app.domain.calendars import MissedPolicy, Recurrence, parse
from app.domain.retry import RetryPolicy
from app.domain.schedules import FIRES_AT_ONCE, Due, Schedule, Template, due

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def a_schedule(rules: Recurrence, next_fire_at: datetime | None, **changes: object) -> Schedule:
    template = Template(type="echo", config={}, queue="small", retry=RetryPolicy())
    schedule = {"id": uuid4(), "tenant": "default", "name": "x", "template": template, "created_by": "test", **changes}
    return Schedule(**schedule, rules=rules, next_fire_at=next_fire_at, created_at=NOON, updated_at=NOON)  # type: ignore[arg-type]  # of the right types


def test_nothing_is_due_before_the_next_instant_or_while_it_is_paused() -> None:
    rules = parse({"intervals": "1h"})
    ahead = a_schedule(rules, NOON + timedelta(hours=1))
    paused = a_schedule(rules, NOON, paused=True)

    assert due(ahead, NOW) == Due((), ahead.next_fire_at)
    assert due(paused, NOW) == Due((), NOON)


def test_after_years_of_sleep_the_last_instant_is_found() -> None:
    schedule = a_schedule(parse({"cron": "* * * * * *"}), datetime(1999, 1, 1, tzinfo=UTC))
    daily = a_schedule(parse({"cron": "0 12 * * *"}), datetime(1999, 1, 1, 12, tzinfo=UTC))

    assert due(schedule, NOW).instants == tuple(NOW - timedelta(seconds=late) for late in range(10, -1, -1))
    assert due(daily, NOW) == Due((NOON,), NOON + timedelta(days=1))


def test_what_one_transaction_leaves_is_what_the_next_begins_with() -> None:
    schedule = a_schedule(
        parse({"intervals": "1s"}), NOW - timedelta(hours=1), missed_policy=MissedPolicy.ALL, missed_window_s=7200.0
    )

    first = due(schedule, NOW)

    assert len(first.instants) == FIRES_AT_ONCE
    assert first.next_fire_at == first.instants[-1] + timedelta(seconds=1)


def test_a_rule_that_is_over_has_no_next_instant() -> None:
    schedule = a_schedule(parse({"at": "2026-11-20T12:00:00Z"}), NOON)

    assert due(schedule, NOW) == Due((NOON,), None)


@pytest.mark.parametrize(
    "rules", [{"intervals": "7h"}, {"cron": "15 3 * * 2"}, {"at": "2026-11-03T00:00:00Z"}], ids=min
)
@pytest.mark.parametrize("days", [0, 3, 17, 40])
def test_the_last_instant_is_the_end_of_all_that_there_are(rules: dict[str, str], days: int) -> None:
    recurrence = parse(rules)
    after = NOW - timedelta(days=days)

    instants = recurrence.due_between(after, NOW, 1000)

    assert recurrence.last_between(after, NOW) == (instants[-1] if instants else None)
