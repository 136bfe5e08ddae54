"""Every measurement, one after another; prints a table and keeps it in ``var/bench.json``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RESULTS = Path("var/bench.json")
BENCHES = (
    "import_bench",
    "formats_bench",
    "rules_bench",
    "export_bench",
    "jobs_bench",
    "bulk_bench",
    "schedules_bench",
    "flatness_bench",
    "search_bench",
    "large_bench",
)


def main() -> None:
    RESULTS.unlink(missing_ok=True)
    for name in BENCHES:
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}", "--json", str(RESULTS)], check=True)
    entries = json.loads(RESULTS.read_text())
    print(f"\n{'measurement':90} {'ratio':>8} {'goal':>8} {'runs':>5}")
    for entry in entries:
        runs = len(entry["runs"]) if isinstance(entry["runs"], list) else entry["runs"]
        print(f"{entry['name']:90} {entry['ratio']:8.2f} {entry['goal']:8} {runs:5}")


if __name__ == "__main__":
    main()
