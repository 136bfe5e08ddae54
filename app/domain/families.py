"""Families: a job whose work is its children, and what their ends make of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.domain.jobs import Outcome


class Kind(StrEnum):
    """What the children are."""

    BATCH = "batch"
    """Payloads, in any number and without names."""
    PIPELINE = "pipeline"
    """Named stages that may wait for each other."""


class OnFailure(StrEnum):
    """What a child that fails for good does to the others."""

    CONTINUE = "continue"
    STOP = "stop-on-error"
    """What has not begun is cancelled, reason ``skipped``."""
    RETRY = "retry"
    """It is run again as a whole, so many times; then as ``STOP``. Only for stages."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many children stand where; they add up to ``total``."""

    total: int
    running: int
    completed: int
    failed: int
    cancelled: int

    @property
    def pending(self) -> int:
        """Those that have not begun, or wait for another attempt."""
        return self.total - self.running - self.completed - self.failed - self.cancelled


@dataclass(frozen=True, slots=True)
class Ending:
    """How a family ends: ``completed`` with an outcome, or failed when ``outcome`` is ``None``."""

    outcome: Outcome | None


def ending(*, total: int, completed: int, failed: int, cancelled: int, on_failure: OnFailure) -> Ending | None:
    """What the ends of all children make of their parent; ``None`` while some are not over.

    One failure fails a family, unless it continues after failures; then only the failure of every child does.
    """
    if completed + failed + cancelled < total:
        return None
    if total == 0:
        return Ending(Outcome.EMPTY)
    if completed == total:
        return Ending(Outcome.SUCCESS)
    if completed == 0 or (failed and on_failure is not OnFailure.CONTINUE):
        return Ending(None)
    return Ending(Outcome.PARTIAL)
