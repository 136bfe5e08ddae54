"""The memory that a job may add to its process: a limit that raises MemoryError, and the size that is watched."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_MIB: Final = 2**20


def data_mb() -> float:
    """Private writable memory of this process, in mebibytes: what ``RLIMIT_DATA`` counts."""
    return _status_mb("VmData")


def resident_mb() -> float:
    """Memory of this process that is in RAM, in mebibytes."""
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{_STATUS} has no {name}")


@contextmanager
def at_most(memory_mb: int | None) -> Iterator[None]:
    """Within it, what would add more than ``memory_mb`` to this process raises MemoryError.

    Only the soft limit is lowered: the hard one could never be raised again.
    """
    if memory_mb is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int((data_mb() + memory_mb) * _MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
