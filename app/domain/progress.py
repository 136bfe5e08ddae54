"""How far a job is: percent, rate and the time it will still take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running job last reported.

    Args:
        rows_done: Rows handled, good and bad.
        rows_total: Rows expected; ``None`` while unknown.
        bytes_done: Bytes of the source consumed (as stored, compressed or not).
        bytes_total: Size of the source as stored; ``None`` when unknown.
        stage: The step it is in; of a pipeline the names of the stages at work.
        parts_done: Children of a parent that are over, however they ended.
        parts_total: Children in all; ``None`` for a job that is no parent.
    """

    rows_done: int = 0
    rows_total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    stage: str | None = None
    parts_done: int = 0
    parts_total: int | None = None

    @property
    def fraction(self) -> float | None:
        """Part done, 0 to 1: by children, by rows or by bytes, whichever number is known; ``None`` when none is."""
        if self.parts_total:
            return min(1.0, self.parts_done / self.parts_total)
        if self.rows_total:
            return min(1.0, self.rows_done / self.rows_total)
        if self.bytes_total:
            return min(1.0, self.bytes_done / self.bytes_total)
        return None

    def percent(self, *, ended: bool) -> float:
        """0 to 100, one decimal; 100 only for a job that completed."""
        if ended:
            return 100.0
        return min(99.9, round((self.fraction or 0.0) * 100, 1))

    def rows_per_s(self, started_at: datetime, now: datetime) -> float | None:
        """Mean rate since ``started_at``; ``None`` before the first row."""
        elapsed_s = (now - started_at).total_seconds()
        if not self.rows_done or elapsed_s <= 0:
            return None
        return self.rows_done / elapsed_s

    def eta(self, started_at: datetime, now: datetime) -> datetime | None:
        """When it will end at the mean rate so far; ``None`` before the first batch."""
        fraction = self.fraction
        if not fraction:
            return None
        elapsed_s = (now - started_at).total_seconds()
        return now + timedelta(seconds=elapsed_s * (1 - fraction) / fraction)


@dataclass(frozen=True, slots=True)
class Overall:
    """How far a set of jobs is, in per cent.

    Args:
        mean_percent: Each job counts the same.
        weighted_percent: Each row counts the same; ``None`` while some job does not know how many rows it will have,
            and when there are none.
    """

    mean_percent: float
    weighted_percent: float | None


def overall(jobs: Sequence[tuple[Progress, float]]) -> Overall:
    """How far jobs are together, by the progress and the percentage of each; of none: nothing is left to do."""
    if not jobs:
        return Overall(100.0, None)
    totals = [_rows_total(progress, percent) for progress, percent in jobs]
    known: list[int] = [total for total in totals if total is not None]
    done = sum(min(progress.rows_done, total) for (progress, _), total in zip(jobs, totals, strict=True) if total)
    rows = sum(known) if len(known) == len(jobs) else 0
    return Overall(
        mean_percent=round(sum(percent for _, percent in jobs) / len(jobs), 1),
        weighted_percent=round(100 * done / rows, 1) if rows else None,
    )


def _rows_total(progress: Progress, percent: float) -> int | None:
    """The rows of a job; one that completed has no more than it did."""
    return progress.rows_done if progress.rows_total is None and percent == 100 else progress.rows_total


@dataclass(frozen=True, slots=True)
class SetProgress:
    """How far a set of jobs is that may be too large to be read one by one; the percentages are as in ``Overall``.

    Args:
        rows_total: ``None`` while some job does not know how many rows it will have.
    """

    jobs: int
    completed: int
    failed: int
    cancelled: int
    rows_done: int
    rows_total: int | None
    mean_percent: float
    weighted_percent: float | None

    @property
    def all_terminal(self) -> bool:
        """Whether none is left to end."""
        return self.jobs == self.completed + self.failed + self.cancelled

    @property
    def all_succeeded(self) -> bool:
        """Whether every one completed."""
        return self.jobs == self.completed
