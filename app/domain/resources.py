"""What a job may use of its worker: memory and processors, as documents 002 and others write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

_MEMORY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]i?B?|B)", re.ASCII | re.IGNORECASE)
_CPU: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(m?)", re.ASCII)
_BYTES: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
MOST_MEMORY_MB: Final = 1_048_576
MOST_CPU_M: Final = 1_024_000


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job may use; ``None`` asks for nothing.

    Args:
        memory_mb: Mebibytes that it may add to its worker's process.
        cpu_m: Thousandths of a processor that are reserved for it.
    """

    memory_mb: int | None = None
    cpu_m: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As they are shown, and could be sent."""
        return {"memory_mb": self.memory_mb, "cpu": self.cpu_m / 1000 if self.cpu_m else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resources:
        """The inverse of ``as_json``."""
        return cls(value["memory_mb"], None if value["cpu"] is None else cpu_m(value["cpu"]))


def memory_mb(value: object) -> int:
    """Mebibytes of ``"1GB"``, ``"512MiB"`` or a number of mebibytes; a kilobyte has 1024 bytes, however it is written.

    Raises:
        ValueError: It is none of these, or not from 1 MiB to 1 TiB.
    """
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        size = int(Decimal(match[1]) * _BYTES[match[2].lower().rstrip("b").rstrip("i")] / 2**20)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError(f'expected a text like "512MB" or "1GB", or mebibytes, got {_shown(value)}')
    return _within(size, MOST_MEMORY_MB, f"expected 1 MiB to 1 TiB, got {_shown(value)}")


def cpu_m(value: object) -> int:
    """Thousandths of a processor of ``"1500m"``, ``"1.5"`` or a number of processors.

    Raises:
        ValueError: It is none of these, or not from 0.001 to 1024 processors.
    """
    match = _CPU.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        raise ValueError(f'expected processors like 2, "1.5" or "1500m", got {_shown(value)}')
    thousandths = int(Decimal(match[1]) * (1 if match[2] else 1000))
    return _within(thousandths, MOST_CPU_M, f"expected 0.001 to 1024 processors, got {_shown(value)}")


def _within(value: int, most: int, fault: str) -> int:
    if not 1 <= value <= most:
        raise ValueError(fault)
    return value


def _shown(value: object) -> str:
    return repr(value)[:40]
