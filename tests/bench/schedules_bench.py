"""Schedules of one and the same second: how long until the last of their jobs is admitted.

    python -m tests.bench.schedules_bench [--schedules 1000] [--runs 3] [--json var/bench.json]

A whole Haulier with its beat; the second is the database's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

from sqlalchemy import text

from app.bootstrap import Services, build_services
from app.runtime.stack import Stack
from config.settings import from_env
from tests.bench.results import keep

GOAL_S = 3.0
EVERY_S = 30
PATIENCE_S = 120.0


def _make(services: Services, count: int) -> datetime:
    """Make ``count`` schedules that all fire every ``EVERY_S`` seconds; the first instant that they have in common."""
    body = {"template": {"type": "echo", "config": {}}, "rules": {"intervals": f"{EVERY_S}s"}}
    for place in range(count):
        last = services.schedules.create("default", {"name": f"number {place}", **body}, actor="bench")
    assert last.next_fire_at is not None
    return last.next_fire_at + timedelta(seconds=EVERY_S)


def _admissions(services: Services, second: datetime, count: int) -> tuple[float, float]:
    """Seconds from ``second`` until the last of its jobs was made, and until the last was admitted."""
    asked = text(
        """
        SELECT count(j.admitted_at) AS admitted, max(j.created_at) AS made_at, max(j.admitted_at) AS admitted_at
        FROM schedule_fires AS f JOIN jobs AS j ON j.id = f.job_id WHERE f.fire_at = :second
        """
    )
    until = second + timedelta(seconds=PATIENCE_S)
    while datetime.now(UTC) < until:
        sleep(0.5)
        with services.sessions.begin() as session:
            row = session.execute(asked, {"second": second}).one()
        if row.admitted == count:
            return (row.made_at - second).total_seconds(), (row.admitted_at - second).total_seconds()
    raise SystemExit(f"of {count} jobs {row.admitted} were admitted within {PATIENCE_S:g} s")


def measure(stack: Stack, *, count: int, runs: int) -> dict[str, Any]:
    services = build_services(from_env(stack.environment), application_name="bench", pool_size=2)
    first = _make(services, count)
    took_s = []
    for run in range(runs):
        made_s, admitted_s = _admissions(services, first + run * timedelta(seconds=EVERY_S), count)
        took_s.append(admitted_s)
        print(
            f"{count:,} schedules of one second: all made after {made_s:.2f} s ({count / made_s:,.0f} fires/s), all "
            f"admitted after {admitted_s:.2f} s; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    name = f"{count:,} schedules of one second, s to the last admission (less is better)"
    return {"name": name, "ratio": round(statistics.median(took_s), 2), "goal": GOAL_S, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    stack = Stack(folder / "all", port=9700, processes=["web", "engine", "small", "beat"], throw_away=True)
    stack.start()
    try:
        keep(asked.json, [measure(stack, count=asked.schedules, runs=asked.runs)])
    finally:
        stack.stop()
        stack.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
