"""Counts that a job type gives: any whole number, also one of a library's own kind, that a bigint can hold."""

from __future__ import annotations

from operator import index
from typing import Final, SupportsIndex

_MOST: Final = 2**63 - 1


def count_of(what: str, value: SupportsIndex) -> int:
    """``value`` as a number from 0 to 2**63 - 1; ValueError, which says ``what`` it is, when it is none."""
    try:
        count = -1 if isinstance(value, bool) else index(value)
    except TypeError:
        count = -1
    if not 0 <= count <= _MOST:
        raise ValueError(f"{what} is 0 to {_MOST}, got {value!r:.100}")
    return count
