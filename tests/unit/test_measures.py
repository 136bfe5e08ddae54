"""What a job cost, and between which instants it will end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.domain.measures import Measures, added, eta_range
from app.domain.progress import Progress

START = datetime(2026, 11, 1, tzinfo=UTC)
HALF = Progress(50, 100)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_the_end_lies_around_what_the_rate_foretells_where_nothing_is_known() -> None:
    earliest, latest = eta_range(HALF, START, after(100), ()) or (None, None)

    assert (earliest, latest) == (after(180), after(225))


def test_past_jobs_of_a_type_widen_the_range_to_what_came_of_them() -> None:
    ratios = [1.0, 1.1, 2.0, 1.0, 1.2, 0.5, 1.0, 1.0, 1.0, 1.0, 3.0]

    earliest, latest = eta_range(HALF, START, after(100), ratios) or (None, None)

    assert (earliest, latest) == (after(200), after(300))


def test_before_the_first_batch_no_range_is_given() -> None:
    assert eta_range(Progress(0, 100), START, after(5), ()) is None


def test_the_error_of_what_was_foretold_midway_is_a_part_of_the_whole_time() -> None:
    steady = Measures(midway_at=after(50), midway_part=0.5)
    hurried = Measures(midway_at=after(80), midway_part=0.5)

    assert steady.eta_error(START, after(100)) == 0.0
    assert hurried.eta_error(START, after(100)) == 0.6
    assert Measures().eta_error(START, after(100)) is None


def test_stages_tell_their_seconds_the_one_that_goes_on_too() -> None:
    measures = Measures(stage_at=after(30), stage_seconds={"reading": 10.0, "loading": 2.0})

    assert measures.stages("loading", after(90)) == {"loading": 62.0, "reading": 10.0}
    assert Measures().stages(None, after(90)) is None


def test_runs_of_a_job_are_added_but_for_their_peaks() -> None:
    first = {"cpu_s": 1.5, "peak_rss_mb": 200.0}

    assert added(None, first) == first
    assert added(first, {"cpu_s": 0.5, "peak_rss_mb": 150.0}) == {"cpu_s": 2.0, "peak_rss_mb": 200.0}
