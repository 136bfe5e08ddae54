"""What only shows at size: memory and rates of large files and tables, and whether the API stays quick beside them.

    python -m tests.bench.large_bench [--only files] [--megabytes 10 300 3000] [--packed-megabytes 1000]
        [--health-megabytes 100] [--rows 2000000] [--format-rows 500000] [--payloads 100000] [--json var/bench.json]

A whole installation with four worker processes, asked through its API; the memory of a job is what its worker tells of
it. A megabyte is 10**6 bytes of a file as it lies in S3. Postgres has shared_buffers of 1 GB and max_wal_size of 4 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest
import requests

from app.bootstrap import build_services
from app.domain.tables import Index
from app.runtime.stack import Stack
from app.storage.s3 import S3Store
from config.settings import from_env
from tests.bench.export_bench import FILL
from tests.bench.export_bench import TABLE as CONTACTS
from tests.bench.import_bench import TABLE as PEOPLE
from tests.bench.installation import Ask, Installation, Ran, asker, children, memory_growth
from tests.bench.large_files import bring
from tests.bench.results import entry, keep, p95_of

BUCKET = "haulier-bench"
WORKERS = 4
RUNS = 5
"""Pairs of an export in each format and one as plain CSV."""
PAGE_ROWS = 1000
PAGES = 50
"""Of the first and of the last pages so many are compared."""
STORED = replace(CONTACTS, indexes=(Index(("created_at",)),))
FORMATS: tuple[tuple[str, str, float], ...] = (
    ("csv", "gzip", 0.7),
    ("csv", "zstd", 0.7),
    ("ndjson", "none", 0.7),
    ("json", "none", 0.7),
    ("xlsx", "none", 0.7),
    ("parquet", "none", 0.7),
)
"""Format, compression, and how much of the rate of plain CSV is wanted."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; see the module."""

    megabytes: Sequence[int]
    packed_megabytes: int
    health_megabytes: int
    rows: int
    format_rows: int
    payloads: int


# Imports


def _imported(here: Installation, megabytes: int, **how: Any) -> tuple[Ran, float]:
    """An import of a new file into the empty table; also its seconds with those of the indexes that came after it.

    Args:
        how: As in ``bring``.
    """
    packed = how.get("packed", False)
    name = "large.csv.gz" if packed else "large.csv"
    rows = bring(here.objects, here.place(name), megabytes=megabytes, **how)
    here.execute(f"TRUNCATE t_default.{PEOPLE.name}", "CHECKPOINT")
    with here.worker():
        ran = here.run("insert_csv_file", {"s3_key": here.place(name).key, "table": PEOPLE.name})
        over = ran.finished_at
        if ran.result.get("indexes") == "pending":
            newest = here.ask("GET", "/v1/jobs?system=true&type=reconcile_indexes&limit=1")["items"][0]["id"]
            over = max(over, here.ended(newest).finished_at)
    here.objects.delete([here.place(name)])
    if ran.rows != rows or ran.result["books"]["loaded"] != rows:
        raise SystemExit(f"{rows:,} rows were sent: {ran.result['books']}")
    seconds = (over - ran.started_at).total_seconds()
    print(
        f"  {megabytes:,} MB{' of gzip' * packed}: {rows:,} rows in {ran.seconds:.1f} s, {seconds:.1f} s with indexes, "
        f"{rows / seconds:,.0f} rows/s, {ran.peak_mb:.0f} MB of memory",
        flush=True,
    )
    return ran, rows / seconds


@pytest.mark.feature("S4-04", "S4-22", "S4-28")
def files(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """Memory and rate of an import by the size of its file."""
    imported = {size: _imported(here, size) for size in sorted(sizes.megabytes)}
    least, *_, middle, most = (min(imported), *sorted(imported)[-2:])
    peaks_mb = {size: ran.peak_mb for size, (ran, _) in imported.items()}
    rate, before = imported[most][1], imported[middle][1]
    told = ", ".join(f"{size:,} MB: {peak:.0f}" for size, peak in peaks_mb.items())
    return [
        entry(f"import of {most:,} MB, MB of memory (less is better)", max(peaks_mb.values()), 250, told=told),
        entry(f"the same, MB more than for {least:,} MB (less is better)", peaks_mb[most] - peaks_mb[least], 20),
        entry(f"import of {most:,} MB / {middle:,} MB, rows/s", rate / before, 0.8, told=f"{rate:,.0f} rows/s"),
    ]


@pytest.mark.feature("S4-22")
def long_rows(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """Memory of an import of rows of 10 kB."""
    megabytes = min(300, max(sizes.megabytes))
    ran, rate = _imported(here, megabytes, block_rows=1000, longer_by=9_700)
    name = f"import of {megabytes:,} MB in rows of 10 kB, MB of memory (less is better)"
    return [entry(name, ran.peak_mb, 250, told=f"{ran.rows:,} rows, {rate:,.0f} rows/s")]


def packed(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """Memory of an import of a gzip file."""
    ran, rate = _imported(here, sizes.packed_megabytes, packed=True)
    name = f"import of {sizes.packed_megabytes:,} MB of gzip, MB of memory (less is better)"
    return [entry(name, ran.peak_mb, 300, told=f"{ran.rows:,} rows, {rate:,.0f} rows/s")]


# The API beside them


@pytest.mark.feature("S4-10")
def health(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """How long GET /v1/health takes while as many imports run as there are workers."""
    rows = bring(here.objects, here.place("side.csv"), megabytes=sizes.health_megabytes)
    tables = [f"{PEOPLE.name}_{number}" for number in range(WORKERS)]
    here.execute(*(f"TRUNCATE t_default.{table}" for table in tables), "CHECKPOINT")
    config = {"s3_key": here.place("side.csv").key}
    with here.worker(), ThreadPoolExecutor(WORKERS) as pool:
        waiting = [pool.submit(here.run, "insert_csv_file", {**config, "table": table}) for table in tables]
        taken = list(_samples(f"{here.stack.url}/v1/health", waiting))
        ran = [one.result() for one in waiting]
    while_all_ran = within(taken, ran)
    p50, p95 = statistics.median(while_all_ran), p95_of(while_all_ran)
    told = f"p50 {p50:.1f}, most {max(while_all_ran):.1f}, {len(while_all_ran)} calls, {WORKERS} of {rows:,} rows each"
    name = f"GET /v1/health while {WORKERS} imports run, p95 in ms (less is better)"
    return [entry(name, p95, 100, told=told, runs=len(while_all_ran))]


def _samples(url: str, until: Sequence[Future[Ran]]) -> Iterator[tuple[datetime, float]]:
    """When each call began, and its milliseconds; each on a connection of its own, as probes ask."""
    while not all(one.done() for one in until):
        at, start = datetime.now(UTC), perf_counter()
        requests.get(url, timeout=60).raise_for_status()
        yield at, (perf_counter() - start) * 1000
        sleep(0.05)


def within(samples: Sequence[tuple[datetime, float]], ran: Sequence[Ran]) -> list[float]:
    """The milliseconds of the calls that began while all of the jobs ran; there must be twenty."""
    begin, end = max(one.started_at for one in ran), min(one.finished_at for one in ran)
    inside = [took_ms for at, took_ms in samples if begin <= at <= end]
    if len(inside) < 20:
        raise SystemExit(f"only {len(inside)} calls came while all jobs ran: take a larger --health-megabytes")
    return inside


@pytest.mark.feature("S3-19")
def payloads(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """A batch of many payloads that is sent a line each, in chunks, as a client does that reads them from a file."""
    answered: list[Any] = []
    start = perf_counter()
    grown_mb = memory_growth(
        children(here.stack.pids()["web"]),
        lambda: answered.append(_send_lines(here, lines(sizes.payloads))),
    )
    seconds = perf_counter() - start
    counts = here.ask("GET", f"/v1/jobs/{answered[0]}/children:count")
    here.ask("POST", f"/v1/jobs/{answered[0]}:cancel")
    if counts["total"] != sizes.payloads:
        raise SystemExit(f"the batch has {counts['total']:,} of {sizes.payloads:,} payloads")
    name = f"a batch of {sizes.payloads:,} payloads in lines"
    return [
        entry(f"{name}, s to the answer (less is better)", seconds, 60),
        entry(f"{name}, MB more in the web process (less is better)", grown_mb, 100),
    ]


def lines(count: int) -> Iterator[bytes]:
    """The body: its options, then a payload a line."""
    yield json.dumps({"count": count}).encode() + b"\n"
    for number in range(count):
        value = {"bucket": "uploads", "key": f"contacts/2026/{number}.csv", "table": "contacts", "number": number}
        yield json.dumps({"type": "echo", "config": {"value": value}}).encode() + b"\n"


def pieces(body: Iterator[bytes], lines_each: int = 500) -> Iterator[bytes]:
    """The body as it is read from a file, many lines at a time: each piece is a chunk of the request."""
    while piece := b"".join(islice(body, lines_each)):
        yield piece


def _send_lines(here: Installation, body: Iterator[bytes]) -> str:
    headers = {"X-API-Key": here.stack.admin_key, "Content-Type": "application/x-ndjson"}
    answer = requests.post(f"{here.stack.url}/v1/batches", data=pieces(body), headers=headers, timeout=600)
    if answer.status_code != 202:
        raise SystemExit(f"the batch was answered {answer.status_code}: {answer.text[:500]}")
    job_id: str = answer.json()["id"]
    return job_id


# Exports and pages


@pytest.mark.feature("S1-22", "S4-37", "S4-93")
def exports(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """Memory and rate of an export of all rows, beside one of a tenth of them."""
    vql = {"select_columns": list(STORED.column_names)}
    config = {"table": STORED.name, "compression": "gzip"}
    with here.worker():
        few = here.run("export_csv_file", {**config, "vql": {**vql, "limit": sizes.rows // 10}})
    with here.worker():
        many = here.run("export_csv_file", {**config, "vql": vql})
    if (few.rows, many.rows) != (sizes.rows // 10, sizes.rows):
        raise SystemExit(f"{few.rows:,} and {many.rows:,} rows were written")
    name = f"export of {sizes.rows:,} rows"
    told = f"{many.seconds:.1f} s, {many.rows_per_s:,.0f} rows/s"
    return [
        entry(f"{name}, MB of memory (less is better)", many.peak_mb, 200, told=told),
        entry(f"{name}, MB more than for a tenth of them (less is better)", many.peak_mb - few.peak_mb, 20),
    ]


def formats(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """Rows a second of every format over those of plain CSV, in pairs whose order alternates."""
    config = {"table": STORED.name, "vql": {"limit": min(sizes.format_rows, sizes.rows)}}
    return [
        _beside_csv(here, config, {"format": kind, "compression": compression}, goal=goal)
        for kind, compression, goal in FORMATS
    ]


def _beside_csv(here: Installation, config: dict[str, Any], form: dict[str, str], *, goal: float) -> dict[str, Any]:
    """One format, in a new worker; memory is that of the first job."""
    with here.worker():
        peak_mb = here.run("export", config | form).peak_mb
        here.run("export", config)
        pairs = []
        for number in range(RUNS):
            ran = [
                here.run("export", one) for one in ((config, config | form) if number % 2 else (config | form, config))
            ]
            pairs.append(ran if number % 2 else ran[::-1])
    kind, compression = form["format"], form["compression"]
    ratios = sorted(packed.rows_per_s / plain.rows_per_s for plain, packed in pairs)
    rates = [statistics.median(ran.rows_per_s for ran in side) for side in zip(*pairs, strict=True)]
    told = f"{rates[1]:,.0f} and {rates[0]:,.0f} rows/s, {ratios[0]:.2f} to {ratios[-1]:.2f}, {peak_mb:.0f} MB"
    name = f"export as {kind}{f', {compression}' * (compression != 'none')} / plain CSV, rows/s"
    return entry(name, statistics.median(ratios), goal, told=told, runs=RUNS)


@pytest.mark.feature("S4-36")
def pages(here: Installation, sizes: Sizes) -> list[dict[str, Any]]:
    """The time of the last pages over that of the first, all of them being read by ``search_after``."""
    results = []
    for told, order in (
        ("by the key", []),
        ("newest first", [{"order_by": "created_at", "order_direction": "desc"}]),
    ):
        took_ms = walk(here.ask, STORED.name, order, rows=sizes.rows, page_rows=PAGE_ROWS)
        first, last = (statistics.median(part) for part in (took_ms[:PAGES], took_ms[-PAGES:]))
        name = f"page of {PAGE_ROWS:,} rows {told}, the last of {sizes.rows:,} rows / the first (less is better)"
        figures = f"p50 {last:.1f} ms and {first:.1f} ms, most of all {max(took_ms):.1f} ms"
        results.append(entry(name, last / first, 1.3, told=figures, runs=len(took_ms)))
    return results


def walk(ask: Ask, table: str, order: list[dict[str, str]], *, rows: int, page_rows: int) -> list[float]:
    """Milliseconds of each page of a table of ``rows`` rows, which must come once each."""
    vql: dict[str, Any] = {"select_columns": ["uuid", "email", "created_at"], "order_by": order}
    terms = [one["order_by"] for one in order] + ["uuid"]
    took_ms: list[float] = []
    seen: set[str] = set()
    while True:
        start = perf_counter()
        items = ask("POST", f"/v1/tables/{table}/records:query", {"vql": vql, "limit": page_rows})["items"]
        took_ms.append((perf_counter() - start) * 1000)
        seen.update(item["uuid"] for item in items)
        if len(seen) != min(len(took_ms) * page_rows, rows):
            raise SystemExit(f"after {len(took_ms)} pages of {page_rows} there are {len(seen):,} of {rows:,} rows")
        if len(seen) == rows:
            return took_ms
        vql = {**vql, "search_after": [items[-1][name] for name in terms]}


# All of it


MEASUREMENTS: tuple[Callable[[Installation, Sizes], list[dict[str, Any]]], ...] = (
    payloads, exports, formats, pages, health, files, long_rows, packed,
)  # fmt: skip
NEED_ROWS = frozenset({exports, formats, pages})


def prepare(here: Installation, declare: Callable[..., Any]) -> None:
    """Declare the tables that are filled by imports, and the one that is read."""
    for name in (PEOPLE.name, *(f"{PEOPLE.name}_{number}" for number in range(WORKERS))):
        declare("default", replace(PEOPLE, name=name))
    declare("default", STORED)


@contextmanager
def _installation(folder: Path) -> Iterator[Installation]:
    tuned = {"shared_buffers": "1GB", "max_wal_size": "4GB", "maintenance_work_mem": "512MB"}
    stack = Stack(
        folder,
        port=9700,
        processes=["web", "engine"],
        environment={"HAULIER_PARALLEL_JOBS": str(WORKERS)},
        postgres_settings=tuned,
        bucket=BUCKET,
        throw_away=True,
    )
    stack.start()
    try:
        settings = from_env(stack.environment)
        services = build_services(settings, application_name="bench", pool_size=2)
        ask = asker(stack.url, stack.admin_key)
        here = Installation(stack, ask, S3Store(settings), services.sessions, BUCKET)
        prepare(here, services.tables.declare)
        yield here
        services.sessions.kw["bind"].dispose()
    finally:
        stack.stop()
        stack.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=[one.__name__ for one in MEASUREMENTS], action="append")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 300, 3000], help="of CSV files, two or more")
    parser.add_argument("--packed-megabytes", type=int, default=1000)
    parser.add_argument("--health-megabytes", type=int, default=100, help="of each of the imports")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--format-rows", type=int, default=500_000)
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    asked = vars(parser.parse_args())
    only, file = asked.pop("only"), asked.pop("json")
    sizes = Sizes(**asked)
    chosen = [one for one in MEASUREMENTS if only is None or one.__name__ in only]
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    try:
        with _installation(folder / "all") as here:
            if NEED_ROWS.intersection(chosen):
                here.execute(FILL, rows=sizes.rows)
                here.execute(f"VACUUM (ANALYZE, FREEZE) t_default.{STORED.name}", "CHECKPOINT")
            for measurement in chosen:
                keep(file, measurement(here, sizes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
