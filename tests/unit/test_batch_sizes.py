"""Which batch size is suggested, and when none is."""

from __future__ import annotations

from app.domain.batch_sizes import SizeUse, suggest


def a_use(batch_size: int, rows_per_s: float, *, jobs: int = 3) -> SizeUse:
    return SizeUse(batch_size, jobs=jobs, rows=1000, failed=0, seconds=1.0, rows_per_s=rows_per_s)


def test_the_fastest_size_is_suggested_with_the_figures() -> None:
    suggestion = suggest([a_use(500, 40_000), a_use(20_000, 90_000), a_use(100_000, 60_000)])

    assert suggestion.batch_size == 20_000
    assert "90,000 rows/s (median), against 40,000 with 500, 60,000 with 100,000" in suggestion.reason


def test_of_sizes_that_are_as_fast_the_smallest_is_suggested() -> None:
    assert suggest([a_use(500, 80_000), a_use(5_000, 96_000), a_use(20_000, 100_000)]).batch_size == 5_000


def test_a_size_with_too_few_imports_is_not_compared() -> None:
    suggestion = suggest([a_use(500, 40_000), a_use(20_000, 90_000, jobs=2)])

    assert suggestion.batch_size is None
    assert suggestion.reason.endswith("got 1")


def test_without_imports_nothing_is_suggested() -> None:
    assert suggest([]).batch_size is None
