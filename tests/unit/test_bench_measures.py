"""What `make bench` measures is what it says: files, times and memory."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.bench.__main__ import BENCHES
from tests.bench.import_bench import COLUMNS
from tests.bench.installation import Installation, Ran, memory_growth
from tests.bench.large_bench import lines, pieces, within
from tests.bench.large_files import blocks
from tests.bench.results import p95_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ran(first_s: float, last_s: float) -> Ran:
    return Ran("1", NOON + timedelta(seconds=first_s), NOON + timedelta(seconds=last_s), 1, 1.0, {})


def test_every_bench_is_run_by_make_bench() -> None:
    there = {path.stem for path in Path("tests/bench").glob("*_bench.py")}

    assert there == set(BENCHES)


def test_blocks_of_a_file_share_no_key_address_or_profile() -> None:
    rows = [row for block in islice(blocks(50), 3) for row in csv.reader(block.decode().splitlines())]

    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert len({UUID(row[0]) for row in rows}) == 150
    for name in ("email", "linkedin_url"):
        assert len({row[COLUMNS.index(name)] for row in rows}) == 150


def test_95_of_100_values_do_not_exceed_the_p95() -> None:
    assert p95_of([float(value) for value in range(100, 0, -1)]) == 95.0
    assert p95_of([1.0, 2.0]) == 2.0
    assert p95_of([7.0]) == 7.0


def test_calls_count_that_began_while_all_jobs_ran() -> None:
    samples = [(NOON + timedelta(seconds=second), float(second)) for second in range(60)]

    assert within(samples, [ran(0, 40), ran(10, 50)]) == [float(second) for second in range(10, 41)]


def test_jobs_that_did_not_run_side_by_side_measure_nothing() -> None:
    samples = [(NOON + timedelta(seconds=second), 1.0) for second in range(60)]

    with pytest.raises(SystemExit, match="only 0 calls"):
        within(samples, [ran(0, 20), ran(30, 50)])


def test_memory_counts_that_was_given_back_before_the_end() -> None:
    grown_mb = memory_growth([os.getpid()], lambda: memoryview(bytearray(os.urandom(64) * 2**20)).release())

    assert 60 < grown_mb < 200


def test_a_batch_in_lines_begins_with_their_number() -> None:
    sent = list(pieces(lines(3), lines_each=3))

    first, *rest = (json.loads(line) for line in b"".join(sent).splitlines())
    assert len(sent) == 2

    assert first == {"count": 3}
    assert [line["config"]["value"]["number"] for line in rest] == [0, 1, 2]


def test_a_job_that_fails_ends_the_bench() -> None:
    def ask(method: str, path: str, body: Any = None, /) -> Any:
        return {"id": "1", "state": "failed", "error": {"code": "s3.not_found"}}

    nothing: Any = None
    here = Installation(nothing, ask, nothing, nothing, "bucket")

    with pytest.raises(SystemExit, match=r"is failed: .*s3\.not_found"):
        here.run("import", {})
