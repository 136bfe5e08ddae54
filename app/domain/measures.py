"""What a job cost, how fast it went, and how well its end was foretold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from app.domain.progress import Progress

MIDWAY: Final = 0.5
"""The part of a job at which its end is foretold, to be compared with what came."""
UNKNOWN_RATIOS: Final = (0.8, 1.25)
"""How the rest of a job may differ from what its rate so far foretells, where no job of its type has shown it."""
_FEWEST_PAST: Final = 3


@dataclass(frozen=True, slots=True)
class Measures:
    """What was taken while a job ran.

    Args:
        spent: ``cpu_s``, ``peak_rss_mb``, ``s3_s`` and ``database_s`` of all its runs that told them; ``None`` for a
            job that shares its process with others.
        stage_at: When its stage began; ``stage_seconds`` are those of the stages before.
        midway_at: When it was first seen past the middle; ``midway_part`` is how far it was then, 0 to 1.
    """

    spent: Mapping[str, float] | None = None
    stage_at: datetime | None = None
    stage_seconds: Mapping[str, float] | None = None
    midway_at: datetime | None = None
    midway_part: float | None = None

    def stages(self, stage: str | None, until: datetime) -> dict[str, float] | None:
        """Seconds by stage in order of their length, the one that goes on till ``until`` included."""
        seconds = dict(self.stage_seconds or {})
        if stage is not None and self.stage_at is not None:
            lasted_s = max(0.0, (until - self.stage_at).total_seconds())
            seconds[stage] = seconds.get(stage, 0.0) + lasted_s
        longest = sorted(seconds.items(), key=lambda one: -one[1])
        return {name: round(lasted_s, 3) for name, lasted_s in longest} or None

    def eta_error(self, started_at: datetime, finished_at: datetime) -> float | None:
        """How far off the end foretold midway was, as a part of the whole time: 0.1 is ten per cent too late."""
        if self.midway_at is None or not self.midway_part:
            return None
        whole_s = (finished_at - started_at).total_seconds()
        foretold_s = (self.midway_at - started_at).total_seconds() / self.midway_part
        return round(foretold_s / whole_s - 1, 4) if whole_s > 0 else None


def eta_range(
    progress: Progress, started_at: datetime, now: datetime, past_ratios: Sequence[float]
) -> tuple[datetime, datetime] | None:
    """Between which instants a job will end, eight times of ten; ``None`` before the first batch.

    Args:
        past_ratios: Of past jobs of its type: what their second half took, over what their first half foretold.
    """
    eta = progress.eta(started_at, now)
    if eta is None:
        return None
    low, high = UNKNOWN_RATIOS
    if len(past_ratios) >= _FEWEST_PAST:
        ratios = sorted(past_ratios)
        low, high = (ratios[round(place * (len(ratios) - 1))] for place in (0.1, 0.9))
    left_s = (eta - now).total_seconds()
    return now + timedelta(seconds=left_s * min(low, 1.0)), now + timedelta(seconds=left_s * max(high, 1.0))


def added(before: Mapping[str, Any] | None, now: Mapping[str, float]) -> dict[str, float]:
    """What runs of a job spent together; peaks are not added."""
    if not before:
        return dict(now)
    return {
        name: max(before.get(name, 0), value) if name.startswith("peak_") else round(before.get(name, 0) + value, 3)
        for name, value in now.items()
    }
