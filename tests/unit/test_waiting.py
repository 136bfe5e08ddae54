"""Why a job waits, from what is known of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.domain.lifecycle import JobState
from app.domain.waiting import Cause, Facts, LimitUse, why

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ONE = UUID(int=1)
FULL = LimitUse("key", "bank", 2, 2)
RATE = LimitUse("type", "echo", None, 0, rate=5, rate_used=5, rate_until=NOW, period_s=60.0)


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "now": NOW,
        "state": JobState.OPEN,
        "attempts": 1,
        "due_at": NOW,
        "needs": (),
        "parent_id": None,
        "window": None,
        "paused": False,
        "queue_paused": False,
        "parent_paused": False,
        "queue": "small",
        "has_queue": True,
        "limits": (),
        "class_queued": 0,
        "class_bound": 100,
        "slots": 2,
        "cpu_m": 0,
        "widest_cpu_m": 2000,
        "ahead": 10,
        "run_s": 3.0,
    }
    return Facts(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({}, [Cause.BUSY]),
        ({"state": JobState.BLOCKED, "needs": (ONE,)}, [Cause.DEPENDENCY]),
        ({"state": JobState.BLOCKED, "parent_id": ONE, "window": 5}, [Cause.WINDOW]),
        ({"paused": True}, [Cause.PAUSE]),
        ({"parent_paused": True, "queue_paused": True}, [Cause.PAUSE, Cause.PAUSE]),
        ({"due_at": NOW + timedelta(1)}, [Cause.RUN_AFTER]),
        ({"due_at": NOW + timedelta(1), "state": JobState.RETRY_WAIT}, [Cause.RETRY]),
        ({"limits": (FULL, RATE)}, [Cause.LIMIT, Cause.LIMIT]),
        ({"limits": (FULL,), "state": JobState.QUEUED}, [Cause.BUSY]),
        ({"class_queued": 100}, [Cause.BACKPRESSURE]),
        ({"slots": 0, "state": JobState.QUEUED}, [Cause.NO_WORKER]),
        ({"cpu_m": 3000}, [Cause.NO_WORKER]),
        ({"has_queue": False}, []),
    ],
)
def test_each_cause_is_told(changes: dict[str, Any], causes: list[Cause]) -> None:
    assert [reason.cause for reason in why(facts(**changes)).reasons] == causes


def test_a_likely_start_follows_from_what_is_ahead_and_how_long_that_takes() -> None:
    told = why(facts(class_queued=100))

    assert told.position == 11
    assert told.likely_start_at == NOW + timedelta(seconds=15)


@pytest.mark.parametrize("changes", [{"run_s": None}, {"slots": 0}, {"queue_paused": True}, {"limits": (FULL,)}])
def test_nobody_can_say_when_a_job_starts_that_waits_for_more_than_its_turn(changes: dict[str, Any]) -> None:
    assert why(facts(**changes)).likely_start_at is None


def test_a_job_that_is_not_due_stands_nowhere() -> None:
    assert why(facts(due_at=NOW + timedelta(1))).position is None
