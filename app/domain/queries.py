"""When a query is answered at once, and when it becomes a job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a query is to be answered."""

    AUTO = "auto"
    STREAM = "stream"
    JOB = "job"


class Reason(StrEnum):
    """Why a query became a job."""

    ASKED = "asked"
    ROWS = "query_rows"
    BYTES = "query_bytes"
    COST = "query_cost"
    LOAD = "system_load"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The planner's guess: rows and bytes of the answer, and what it costs to find them."""

    rows: int
    bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that is answered at once; ``load`` is per processor."""

    rows: int
    bytes: int
    cost: float
    load: float


def why_job(estimate: Estimate, bounds: Bounds, load: float) -> Reason | None:
    """Why a query of mode ``auto`` must be a job; ``None`` when it can be answered at once."""
    over = {
        Reason.ROWS: estimate.rows > bounds.rows,
        Reason.BYTES: estimate.bytes > bounds.bytes,
        Reason.COST: estimate.cost > bounds.cost,
        Reason.LOAD: load > bounds.load,
    }
    return next((reason for reason, is_over in over.items() if is_over), None)
