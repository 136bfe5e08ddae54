"""Imports of NDJSON, JSON and XLSX beside the same rows as CSV, each through the whole job of the type ``import``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Final
from xml.sax.saxutils import escape

from app.domain.ports import ObjectRef
from app.storage.s3 import S3Store
from tests.bench.import_bench import BUCKET, Bench, Measured, Run, paired, run
from tests.workbooks import number, row, text, workbook

GOAL: Final = 0.7
SHEET_ROWS: Final = 200_000
NUMBERS: Final = frozenset({"employees_count"})


def measure(bench: Bench, runs: int, only: str | None) -> list[Measured]:
    """Every format, or the one whose name holds ``only``."""
    bench.bring("clean.csv", bench.rows)

    def fresh(name: str) -> Callable[[], Run]:
        def once() -> Run:
            bench.reset()
            return bench.general(name)

        return once

    measured = []
    for kind, begin, between, end in (("NDJSON", "", "\n", "\n"), ("JSON", "[", ",\n", "]")):
        name = f"import of {kind} / the same rows as CSV"
        if only is None or only in name:
            _bring(bench, f"clean.{kind.lower()}", begin, between, end)
            measured.append(paired(name, GOAL, runs, fresh("clean.csv"), fresh(f"clean.{kind.lower()}")))
    name = "import of XLSX / the same rows as CSV"
    if only is None or only in name:
        bench.bring("short.csv", min(bench.rows, SHEET_ROWS))
        _bring_workbook(bench)
        measured.append(paired(name, GOAL, runs, fresh("short.csv"), fresh("short.xlsx")))
    return measured


def _bring_workbook(bench: Bench) -> None:
    """Write the rows of the short CSV file as a sheet; store the workbook."""
    with (bench.folder / "short.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row(
                at,
                [number(cell) if cell.isdigit() and at > 1 else text(escape(cell)) if cell else "" for cell in cells],
            )
            for at, cells in enumerate(csv.reader(file), start=1)
        ]
    ref = ObjectRef(BUCKET, "short.xlsx")
    S3Store(bench.settings).put(ref, workbook("".join(rows)), content_type="application/octet-stream")


def _bring(bench: Bench, name: str, begin: str, between: str, end: str) -> None:
    """Write the rows of the CSV file as objects; store the file."""
    path = bench.folder / name
    with path.open("w", encoding="utf-8") as file:
        file.write(begin)
        for number, record in enumerate(_records(bench)):
            file.write((between if number else "") + record)
        file.write(end)
    with path.open("rb") as stored:
        S3Store(bench.settings).put(ObjectRef(BUCKET, name), stored, content_type="application/json")


def _records(bench: Bench) -> Iterator[str]:
    with (bench.folder / "clean.csv").open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            record = {name: int(value) if name in NUMBERS else value or None for name, value in row.items()}
            yield json.dumps(record)


if __name__ == "__main__":
    run(measure)
