"""Small jobs in bulk and submitted one by one, against raw Celery and BullMQ on the same two cores.

    python -m tests.bench.bulk_bench [--jobs 10000] [--singly 5000] [--runs 5] [--json var/bench.json]

Raw Celery has no result backend, ours keeps everything. BullMQ takes part when ``HAULIER_BENCH_NODE`` names a folder
in which ``npm install bullmq ioredis`` was run. Each has two worker processes; they are measured in turn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import redis

from app.runtime.stack import Stack
from config.memory import settle_in
from tests.bench.export_bench import keep
from tests.bench.peers import WORKERS, RawCelery, bullmq, celery_worker, drain_rate, processes, wait_until

_LEFT = "SELECT count(*) FROM jobs WHERE tenant = 'default' AND state IN ('blocked', 'open', 'queued', 'running')"
_ANY_LEFT = f"SELECT EXISTS ({_LEFT.replace('count(*)', '')})"
_NEWEST_IS_OVER = """
    SELECT state NOT IN ('blocked', 'open', 'queued', 'running')
    FROM (SELECT state FROM jobs WHERE tenant = 'default' ORDER BY id DESC LIMIT 1) AS newest
"""
_TABLES = "jobs, job_events, event_segments, families, event_counters, workers"
_CLIENTS = 8
_LOOK_EVERY_S = 0.05
"""To look costs Postgres milliseconds of the time that is measured."""


class Haulier:
    """The stores of a stack; a web process, an engine and two workers of ``small`` while they are measured."""

    def __init__(self, stack: Stack, log: Path) -> None:
        self._stack = stack
        self._log = log
        place = urlsplit(stack.url)
        self._place = (place.hostname or "", place.port)
        connection = psycopg2.connect(stack.stores.database_url, options="-c enable_seqscan=off")
        connection.autocommit = True
        self._cursor = connection.cursor()

    def jobs_in_one_request(self, jobs: int) -> float:
        """Independent jobs, all of them or none."""
        return self._in_bulk("/v1/jobs:batch", "jobs", jobs)

    def batch(self, jobs: int) -> float:
        """Payloads of one batch, all of which may run at once; it is over when its own job is."""
        return self._in_bulk("/v1/batches", "payloads", jobs, max_concurrency=10_000)

    def _in_bulk(self, path: str, name: str, jobs: int, **options: Any) -> float:
        self._begin()
        with self._server(), self._workers():
            self._wait_for_workers()
            self._work_off(path, {name: _echoes(200), **options})
            start = perf_counter()
            self._work_off(path, {name: _echoes(jobs), **options})
            took_s = perf_counter() - start
        self._expect(jobs + 200, "queue = 'small'")
        return jobs / took_s

    def drain(self, jobs: int) -> float:
        """Jobs that were submitted one by one, from when two workers start."""
        self._begin()
        with self._server():
            with ThreadPoolExecutor(_CLIENTS) as pool:
                list(pool.map(self._submit_singly, [range(first, jobs, _CLIENTS) for first in range(_CLIENTS)]))
            with self._workers():
                rate = drain_rate(lambda: int(self._ask(_LEFT)), jobs, every_s=_LOOK_EVERY_S)
        self._expect(jobs)
        return rate

    def _begin(self) -> None:
        self._cursor.execute(f"TRUNCATE {_TABLES}")
        self._cursor.execute("CHECKPOINT")

    @contextmanager
    def _server(self) -> Iterator[None]:
        haulier = str(Path(sys.executable).with_name("haulier"))
        with processes([[haulier, "web"], [haulier, "engine"]], self._stack.environment, self._log):
            wait_until(self._is_up)
            yield

    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection(*self._place)
        try:
            connection.request("GET", "/v1/health/live")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def _workers(self) -> AbstractContextManager[None]:
        commands = [celery_worker("tasks", f"small{number}", "-Q", "small") for number in range(WORKERS)]
        return processes(commands, self._stack.environment, self._log)

    def _wait_for_workers(self) -> None:
        alive = "SELECT count(*) FROM workers WHERE queue = 'small' AND lease_until > now()"
        wait_until(lambda: self._ask(alive) >= WORKERS)

    def _work_off(self, path: str, body: dict[str, Any]) -> None:
        self._post(http.client.HTTPConnection(*self._place), path, body)
        # First one of the last, which is cheap to look at.
        wait_until(lambda: self._ask(_NEWEST_IS_OVER))
        wait_until(lambda: not self._ask(_ANY_LEFT))

    def _submit_singly(self, numbers: Sequence[int]) -> None:
        connection = http.client.HTTPConnection(*self._place)
        for number in numbers:
            self._post(connection, "/v1/jobs", {"type": "echo", "config": {"value": number}})

    def _post(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> None:
        headers = {"X-API-Key": self._stack.admin_key, "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 202:
            raise SystemExit(f"{path} answered {answer.status}: {said[:500]!r}")

    def _expect(self, jobs: int, which: str = "true") -> None:
        done = self._ask(f"SELECT count(*) FROM jobs WHERE state = 'completed' AND {which}")
        if done != jobs:
            raise SystemExit(f"{done} of {jobs} jobs are completed")

    def _ask(self, question: str) -> Any:
        self._cursor.execute(question)
        return self._cursor.fetchone()[0]


def _echoes(count: int) -> list[dict[str, Any]]:
    return [{"type": "echo", "config": {"value": number}} for number in range(count)]


def measure(stack: Stack, *, jobs: int, singly: int, runs: int, log: Path) -> list[dict[str, Any]]:
    ours = Haulier(stack, log)
    server = stack.stores.redis_url.rpartition("/")[0]
    # The others keep their jobs there, and are not to wait for its disk.
    redis.Redis.from_url(stack.stores.redis_url).config_set("appendonly", "no")
    celery, node = RawCelery(f"{server}/7", log), bullmq(f"{server}/8", log)
    if node is None:
        print("BullMQ: left out, HAULIER_BENCH_NODE names no folder that has it")
    rates: dict[str, list[float]] = {}
    for _ in range(runs):
        done = {
            "Celery": celery.in_bulk(jobs),
            "jobs": ours.jobs_in_one_request(jobs),
            **({"BullMQ": node.in_bulk(jobs)} if node else {}),
            "batch": ours.batch(jobs),
            "Celery drain": celery.drain(singly),
            "drain": ours.drain(singly),
        }
        for name, rate in done.items():
            rates.setdefault(name, []).append(rate)
        told = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in done.items())
        print(f"small jobs: {told}; load {os.getloadavg()[0]:.1f}", flush=True)
    return [_entry(rates, *pair, jobs=jobs) for pair in _PAIRS if pair[1] in rates]


_PAIRS = (
    ("jobs", "Celery", "{:,} small jobs in one request against raw Celery, jobs/s", 6.0),
    ("jobs", "BullMQ", "{:,} small jobs in one request against BullMQ, jobs/s", 1.0),
    ("batch", "Celery", "a batch of {:,} small jobs against raw Celery, jobs/s", 6.0),
    ("batch", "BullMQ", "a batch of {:,} small jobs against BullMQ, jobs/s", 1.0),
    ("drain", "Celery drain", "jobs submitted singly, drain rate against raw Celery's", 0.85),
)


def _entry(
    rates: dict[str, list[float]], ours: str, theirs: str, name: str, goal: float, *, jobs: int
) -> dict[str, Any]:
    ratios = [mine / peer for mine, peer in zip(rates[ours], rates[theirs], strict=True)]
    return {
        "name": name.format(jobs),
        "ratio": round(statistics.median(ratios), 3),
        "goal": goal,
        "runs": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--singly", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    asked = parser.parse_args()
    settle_in()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    tuned = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
    stack = Stack(folder / "all", port=9700, processes=[], postgres_settings=tuned, throw_away=True)
    stack.start()
    try:
        log = folder / "workers.log"
        keep(asked.json, measure(stack, jobs=asked.jobs, singly=asked.singly, runs=asked.runs, log=log))
    finally:
        stack.stop()
        stack.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
