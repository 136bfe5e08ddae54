"""What a run of a job spends: taken at its start and its end, and per call of a store; never per row."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.domain.measures import added

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_RESET_PEAK: Final = "5"


class Tally:
    """Seconds that several threads spend."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count some more."""
        with self._lock:
            self._total_s += seconds

    def total_s(self) -> float:
        """So far."""
        return self._total_s


class Meter:
    """Begins when it is made.

    Args:
        before: What earlier runs of the job spent.
        clocks: Seconds spent so far, by the name they are told under.
    """

    def __init__(self, before: Mapping[str, float] | None, clocks: Mapping[str, Callable[[], float]]) -> None:
        self._before = before
        self._clocks = {"cpu_s": _cpu_s, **clocks}
        self._start = {name: clock() for name, clock in self._clocks.items()}
        # Where it cannot be reset the peak is that of the process.
        with suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")

    def spent(self) -> dict[str, float]:
        """What all runs have spent."""
        now = {name: round(clock() - self._start[name], 3) for name, clock in self._clocks.items()}
        return added(self._before, {**now, "peak_rss_mb": _peak_mb()})


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mb() -> float:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
