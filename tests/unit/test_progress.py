"""Percent, rate and ETA."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.progress import Overall, Progress, overall

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.feature("S0-13")
def test_a_job_that_runs_never_shows_100_percent() -> None:
    assert Progress(100, 100).percent(ended=False) == 99.9
    assert Progress(100, 100).percent(ended=True) == 100.0


def test_rows_count_before_bytes() -> None:
    assert Progress(1, 4, 90, 100).fraction == 0.25
    assert Progress(1, None, 90, 100).fraction == 0.9
    assert Progress().fraction is None


@pytest.mark.feature("S0-15")
def test_half_way_after_a_minute_the_end_is_a_minute_ahead() -> None:
    now = START + timedelta(minutes=1)

    assert Progress(50, 100).eta(START, now) == START + timedelta(minutes=2)
    assert Progress(50, 100).rows_per_s(START, now) == 50 / 60


@pytest.mark.feature("S0-15")
def test_before_the_first_batch_nothing_is_promised() -> None:
    assert Progress(0, 100).eta(START, START + timedelta(seconds=5)) is None
    assert Progress().rows_per_s(START, START + timedelta(seconds=5)) is None


def test_of_several_jobs_each_counts_the_same_or_each_row_does() -> None:
    small, large, unknown = (Progress(10, 10), 100.0), (Progress(0, 90), 0.0), (Progress(5), 0.0)

    assert overall([small, large]) == Overall(mean_percent=50.0, weighted_percent=10.0)
    assert overall([small, unknown]) == Overall(mean_percent=50.0, weighted_percent=None)
    assert overall([]) == Overall(mean_percent=100.0, weighted_percent=None)
