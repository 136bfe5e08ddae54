"""The list of results in ``var/bench.json``: name, ratio, goal and runs of each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def keep(file: Path, results: list[dict[str, Any]]) -> None:
    """Put ``results`` into the list in ``file``; entries of the same name are replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() else []
    names = {result["name"] for result in results}
    file.write_text(json.dumps([entry for entry in before if entry["name"] not in names] + results, indent=2) + "\n")


def entry(name: str, value: float, goal: float, *, told: str = "", runs: int = 1) -> dict[str, Any]:
    """A result as it is kept; printed with its goal, what else is ``told`` and the load of the machine."""
    print(f"{name}: {value:.2f} (goal {goal}){told and f'; {told}'}; load {os.getloadavg()[0]:.1f}", flush=True)
    return {"name": name, "ratio": round(value, 3), "goal": goal, "runs": runs}


def p95_of(values: Sequence[float]) -> float:
    """The value that 95 of 100 do not exceed."""
    return sorted(values)[-(-len(values) * 95 // 100) - 1]
