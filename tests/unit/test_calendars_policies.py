"""Which missed fires are made up for, and what becomes of fires that overlap a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.calendars import MissedPolicy, Overlap, OverlapPolicy, missed, overlap

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOURS_AGO = tuple(NOW - timedelta(hours=hours) for hours in (3, 2, 1))
JUST_NOW = NOW - timedelta(seconds=2)


@pytest.mark.parametrize(
    ("policy", "window_s", "fired"),
    [
        (MissedPolicy.SKIP, 86_400, ()),
        (MissedPolicy.LAST, 0, HOURS_AGO[2:]),
        (MissedPolicy.ALL, 7200, HOURS_AGO[1:]),
        (MissedPolicy.ALL, 86_400, HOURS_AGO),
        (MissedPolicy.ALL, 0, ()),
    ],
)
def test_after_an_outage_the_policy_says_what_is_made_up_for(
    policy: MissedPolicy, window_s: float, fired: tuple[datetime, ...]
) -> None:
    assert missed(policy, HOURS_AGO, NOW, window_s) == fired


@pytest.mark.parametrize("policy", MissedPolicy)
def test_what_is_on_time_fires_under_every_policy(policy: MissedPolicy) -> None:
    due = (JUST_NOW, NOW)

    assert missed(policy, due, NOW, 0) == due


def test_a_fire_on_time_stands_for_those_before_it() -> None:
    assert missed(MissedPolicy.LAST, (*HOURS_AGO, JUST_NOW), NOW, 0) == (JUST_NOW,)


@pytest.mark.parametrize("policy", MissedPolicy)
def test_where_nothing_is_due_nothing_fires(policy: MissedPolicy) -> None:
    assert missed(policy, (), NOW, 3600) == ()


@pytest.mark.parametrize(
    ("policy", "running", "waiting", "decision"),
    [
        (OverlapPolicy.ALLOW, 5, 0, Overlap.RUN),
        (OverlapPolicy.SKIP, 0, 0, Overlap.RUN),
        (OverlapPolicy.SKIP, 1, 0, Overlap.DROP),
        (OverlapPolicy.QUEUE, 0, 0, Overlap.RUN),
        (OverlapPolicy.QUEUE, 1, 0, Overlap.WAIT),
        (OverlapPolicy.QUEUE, 1, 1, Overlap.DROP),
        (OverlapPolicy.QUEUE, 0, 1, Overlap.DROP),
    ],
)
def test_a_fire_during_a_run_runs_waits_or_is_dropped(
    policy: OverlapPolicy, running: int, waiting: int, decision: Overlap
) -> None:
    assert overlap(policy, running=running, waiting=waiting) is decision
