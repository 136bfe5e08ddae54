"""When a query becomes a job, and what is kept of a plan."""

from __future__ import annotations

import pytest

from app.domain.queries import Bounds, Estimate, Reason, why_job

BOUNDS = Bounds(rows=100, bytes=1000, cost=50.0, load=2.0)


@pytest.mark.parametrize(
    ("estimate", "load", "reason"),
    [
        (Estimate(100, 1000, 50.0), 2.0, None),
        (Estimate(101, 1000, 50.0), 2.0, Reason.ROWS),
        (Estimate(100, 1001, 50.0), 2.0, Reason.BYTES),
        (Estimate(100, 1000, 50.1), 2.0, Reason.COST),
        (Estimate(1, 1, 1.0), 2.1, Reason.LOAD),
        (Estimate(101, 1001, 51.0), 9.0, Reason.ROWS),
    ],
)
def test_a_query_becomes_a_job_only_above_a_bound(estimate: Estimate, load: float, reason: Reason | None) -> None:
    assert why_job(estimate, BOUNDS, load) is reason
