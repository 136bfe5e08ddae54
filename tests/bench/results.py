"""The list of results in ``var/bench.json``: name, ratio, goal and runs of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def keep(file: Path, results: list[dict[str, Any]]) -> None:
    """Put ``results`` into the list in ``file``; entries of the same name are replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() else []
    names = {result["name"] for result in results}
    file.write_text(json.dumps([entry for entry in before if entry["name"] not in names] + results, indent=2) + "\n")
