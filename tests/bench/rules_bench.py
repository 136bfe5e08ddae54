"""An import that maps, transforms and checks its rows against the same without; in pairs, as in ``import_bench``.

    python -m tests.bench.rules_bench [--rows 1000000] [--runs 3] [--json var/bench.json]

The five rules are of the kinds that every row goes through: required, length, pattern, enum and range. The other file
holds the same rows under other headers, which are mapped by likeness.
"""

from __future__ import annotations

from typing import Any

from tests.bench.import_bench import IMPORT, TABLE, Bench, Measured, Run, paired, run

RULES: list[dict[str, Any]] = [
    {"rule": "required", "column": "email"},
    {"rule": "length", "column": "first_name", "min": 2, "max": 60},
    {"rule": "pattern", "column": "linkedin_url", "pattern": "https://www\\.linkedin\\.com/in/.+"},
    {"rule": "enum", "column": "country", "values": ["United States", "Germany", "India", "Brazil", "France"]},
    {"rule": "range", "column": "employees_count", "min": 1, "max": 20_000},
]
TRANSFORMS = [{"field": "email", "operation": "lowercase"}, {"field": "title", "operation": "trim"}]
UNIQUE = {"rule": "unique", "columns": ["email"]}
HEADERS = {"first_name": "First Name", "email": "E-Mail Address", "country": "Country Name", "phone": "Phone No."}


def measure(bench: Bench, runs: int, only: str | None) -> list[Measured]:
    """Both, or the one whose name holds ``only``."""
    bench.bring("clean.csv", bench.rows)
    whole = (bench.folder / "clean.csv").read_bytes()
    header, _, rest = whole.partition(b"\n")
    assert header.decode() == ",".join(TABLE.column_names)
    foreign = ",".join(HEADERS.get(name, name) for name in TABLE.column_names)
    bench.put("foreign.csv", foreign.encode() + b"\n" + rest)

    def plain() -> Run:
        return imported("clean.csv")

    def imported(name: str, **config: Any) -> Run:
        bench.reset()
        return bench.job(IMPORT.name, name, {"source": {"s3": {"key": name}}, **config})

    shaped = {"auto_map": {}, "rules": RULES}
    planned = {
        "import mapped by likeness and held to five rules / without": (0.9, shaped),
        "the same with a unique rule and two transforms / without": (
            0.75,
            {**shaped, "rules": [*RULES, UNIQUE], "transforms": TRANSFORMS},
        ),
    }
    return [
        paired(name, goal, runs, plain, lambda config=config: imported("foreign.csv", **config))
        for name, (goal, config) in planned.items()
        if only is None or only in name
    ]


if __name__ == "__main__":
    run(measure)
