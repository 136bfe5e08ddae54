"""What many jobs tell together: durations, rates, queues and workers. Asked often, so each answer is kept a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, Final, TypeVar

from app.domain.ports import Clock
from app.persistence import queues, statistics, workers
from app.persistence.queues import Queue
from app.persistence.statistics import Ended
from app.persistence.workers import LiveSlot
from app.services.reading import Reading
from config.celery import QUEUES

KEPT_S: Final = 15.0
_MOST_KEPT: Final = 1_000
RECENT: Final = timedelta(hours=1)
_MOST_RECENT: Final = 50_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The installation as a monitor sees it; ``recent`` are jobs that ended within ``RECENT``."""

    queues: Sequence[Queue]
    slots: Sequence[LiveSlot]
    waiting: dict[str, int]
    recent: Sequence[Ended]


class Statistics:
    """The use cases of figures."""

    def __init__(self, reading: Reading, clock: Clock, *, kept_s: float = KEPT_S) -> None:
        self._reading = reading
        self._clock = clock
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def ended(self, tenant: str, window: timedelta) -> list[Ended]:
        """The tenant's jobs that ended within ``window``, by type and state.

        Raises:
            InvalidRequestError: ``vql.timeout``: there are more than can be looked at in time.
        """

        def find() -> list[Ended]:
            with self._reading.of_ours(hint="Ask for a shorter window.") as session:
                return statistics.ended(session, tenant, self._clock.now() - window)

        return self._keep(("ended", tenant, window), find)

    def past_ratios(self, tenant: str, job_type: str) -> Sequence[float]:
        """What past jobs of a type say of the rest of one that runs; see ``eta_range``."""

        def find() -> Sequence[float]:
            with self._reading.of_ours() as session:
                return statistics.past_ratios(session, tenant, job_type)

        return self._keep(("ratios", tenant, job_type), find)

    def snapshot(self) -> Snapshot:
        """All tenants together."""

        def find() -> Snapshot:
            with self._reading.of_ours() as session:
                return Snapshot(
                    queues.read(session, QUEUES),
                    workers.live(session),
                    statistics.waiting(session),
                    statistics.ended(session, None, self._clock.now() - RECENT, most=_MOST_RECENT),
                )

        return self._keep("snapshot", find)

    def _keep(self, key: Hashable, find: Callable[[], T]) -> T:
        with self._lock:
            at, value = self._kept.get(key, (-self._kept_s, None))
        if monotonic() - at < self._kept_s:
            return value  # type: ignore[no-any-return]  # what find gave under this key
        found = find()
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = monotonic(), found
        return found
