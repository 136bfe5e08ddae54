"""Which batch size suits a table, by what its imports took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ENOUGH_JOBS: Final = 3
"""Imports of a size before it is compared with others."""
_AS_GOOD: Final = 0.95


@dataclass(frozen=True, slots=True)
class SizeUse:
    """What imports with one batch size came to.

    Args:
        jobs: How many they were; ``failed`` of their ``rows`` were refused.
        seconds: What their slowest lanes took, together.
        rows_per_s: Rows by such seconds of the median import.
    """

    batch_size: int
    jobs: int
    rows: int
    failed: int
    seconds: float
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A batch size, or ``None`` when too little is known; and why."""

    batch_size: int | None
    reason: str


def suggest(uses: Sequence[SizeUse]) -> Suggestion:
    """The smallest size that is as fast as the fastest, within a twentieth: it holds less memory and shorter locks."""
    known = sorted((use for use in uses if use.jobs >= ENOUGH_JOBS), key=lambda use: use.batch_size)
    if len(known) < 2:
        return Suggestion(
            None,
            f"expected two batch sizes with {ENOUGH_JOBS} completed imports each of at least one full batch, "
            f"got {len(known)}",
        )
    fastest = max(known, key=lambda use: use.rows_per_s)
    chosen = next(use for use in known if use.rows_per_s >= _AS_GOOD * fastest.rows_per_s)
    others = ", ".join(f"{use.rows_per_s:,.0f} with {use.batch_size:,}" for use in known if use is not chosen)
    return Suggestion(
        chosen.batch_size,
        f"the smallest as fast as any, within 5 %: {chosen.rows_per_s:,.0f} rows/s (median), against {others}",
    )
