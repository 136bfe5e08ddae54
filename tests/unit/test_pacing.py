"""How many cheap jobs stand admitted: what is gone within half a second, at least the bound."""

from __future__ import annotations

from itertools import pairwise

from app.domain.pacing import HORIZON_S, MOST, Pace


def looks(pace: Pace, *, jobs_per_s: float, every_s: float, count: int) -> list[int]:
    """The rooms of ``count`` looks at a class that is always full and drained at a rate."""
    rooms, stood = [], 0
    for number in range(count):
        queued = max(0, stood - round(jobs_per_s * every_s))
        stood = pace.room(queued, now_s=100 + number * every_s)
        rooms.append(stood)
        pace.stands(stood)
    return rooms


def test_a_class_that_is_hardly_drained_stays_at_the_bound() -> None:
    rooms = looks(Pace(100), jobs_per_s=20, every_s=0.2, count=50)

    assert set(rooms) == {100}


def test_a_class_that_runs_dry_doubles_until_it_lasts_for_the_horizon() -> None:
    rooms = looks(Pace(100), jobs_per_s=4000, every_s=0.2, count=50)

    assert rooms[:4] == [100, 200, 400, 800]
    assert rooms[-1] == 4000 * HORIZON_S


def test_no_class_has_more_than_so_many_times_the_bound() -> None:
    rooms = looks(Pace(10), jobs_per_s=1e6, every_s=0.2, count=50)

    assert max(rooms) == 10 * MOST


def test_a_class_that_slows_down_has_less_from_look_to_look() -> None:
    pace = Pace(100)
    looks(pace, jobs_per_s=8000, every_s=0.2, count=20)
    pace.stands(4000)

    rooms = [pace.room(4000, now_s=103.8 + look / 5) for look in range(1, 8)]

    assert all(later <= max(100, earlier / 2) for earlier, later in pairwise(rooms))
    assert rooms[-1] == 100


def test_a_class_that_nothing_was_admitted_of_or_that_was_long_idle_begins_anew() -> None:
    held, idle = Pace(100), Pace(100)
    held.stands(0)
    looks(idle, jobs_per_s=8000, every_s=0.2, count=20)

    rooms = (held.room(0, now_s=100.0), held.room(0, now_s=100.1), idle.room(0, now_s=200.0))

    assert rooms == (100, 100, 100)
