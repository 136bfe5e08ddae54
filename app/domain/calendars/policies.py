"""What becomes of fires that were missed, and of fires that come while an earlier run is not over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

ON_TIME_S: Final = 10.0
"""A fire this late counts as on time: beat and engine may need so long to change their leader."""


class MissedPolicy(StrEnum):
    """Which missed fires are made up for."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


class OverlapPolicy(StrEnum):
    """What a fire does while an earlier run of the schedule is not over."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class Overlap(StrEnum):
    """What is to be done with one fire."""

    RUN = "run"
    WAIT = "wait"
    DROP = "drop"


def missed(policy: MissedPolicy, due: Sequence[datetime], now: datetime, window_s: float) -> tuple[datetime, ...]:
    """Which of the instants that are due are fired; those on time always are.

    Args:
        policy: ``skip`` fires none that was missed, ``last`` the latest when nothing is on time, ``all`` every one that
            is at most ``window_s`` late.
        due: Instants up to ``now`` that have not fired, in order.
        window_s: Only for ``all``.
    """
    late_s = max(window_s, ON_TIME_S) if policy is MissedPolicy.ALL else ON_TIME_S
    fired = tuple(instant for instant in due if now - instant <= timedelta(seconds=late_s))
    if policy is MissedPolicy.LAST and not fired:
        return tuple(due[-1:])
    return fired


def overlap(policy: OverlapPolicy, *, running: int, waiting: int) -> Overlap:
    """What to do with a fire while ``running`` runs are not over and ``waiting`` fires wait; at most one waits."""
    if policy is OverlapPolicy.ALLOW or not (running or waiting):
        return Overlap.RUN
    if policy is OverlapPolicy.QUEUE and not waiting:
        return Overlap.WAIT
    return Overlap.DROP
