"""Whether admission, claims, lists and reads stay as quick beside millions of finished jobs as beside a few.

    python -m tests.bench.flatness_bench [--few 10000] [--finished 5000000] [--calls 200] [--json var/bench.json]

The finished jobs, with three events each, are spread over the last four weeks in both of two installations, which are
asked in turn. No worker and no engine runs: this process takes their steps one at a time, so that each is measured
alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg2
import pytest

from app.bootstrap import Services, build_services
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.lifecycle import JobState
from app.engine.admit import admit
from app.engine.leader import Leader
from app.persistence import partitions
from app.persistence.job_lists import Filters
from app.persistence.sessions import make_sessions, open_engine
from app.runtime.stack import Stack
from app.services.runs import Runs
from config.settings import from_env
from tests.bench.results import entry, keep, p95_of
from tests.factories import a_slot

WEEKS = 4
GOAL = 1.3
READ = "GET /v1/jobs/ID"
READ_GOAL_MS = 50
_SOME = 2_000
_SOME_IDS = "SELECT id FROM jobs TABLESAMPLE SYSTEM (least(100, 100.0 * %s / %s)) WHERE tenant = 'default'"
_AT_ONCE = 100_000
_WARM = 20
# Ids as the application makes them: milliseconds in their first 48 bits, version 7.
_FILL = """
WITH made AS (
    INSERT INTO jobs (id, tenant, type, queue, state, config, retry, origin, created_by, created_at, updated_at, fence,
                      attempts, event_no, due_at, admitted_at, started_at, attempt_started_at, progressed_at,
                      finished_at, outcome, result, labels)
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7'
                || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15) AS uuid),
           CASE WHEN n %% 10 = 0 THEN 'acme' ELSE 'default' END,
           CASE WHEN n <= 50 THEN 'export_csv_file' WHEN n %% 100 = 1 THEN 'insert_csv_file' ELSE 'echo' END, 'small',
           CASE WHEN n %% 50 = 2 THEN 'failed' ELSE 'completed' END, jsonb_build_object('value', n),
           '{"maximum_attempts": 3, "initial_interval": 1000, "backoff_coefficient": 2.0, "maximum_interval": 60000}',
           'native', 'bench', at, at, 1, 1, 3, at, at, at, at, at, at, 'success', jsonb_build_object('value', n),
           CASE WHEN n <= 50 THEN '{"run": "first"}' WHEN n %% 100 = 3 THEN '{"run": "nightly"}' END::jsonb
    FROM (SELECT n, %(first)s + n * %(step)s AS at FROM generate_series(%(low)s, %(high)s) AS n) AS one
    RETURNING id, tenant, state, created_at
)
INSERT INTO job_events (job_id, number, tenant, type, at, actor, source, target, fence)
SELECT id, e.number, tenant, e.type, created_at, 'bench', e.source, coalesce(e.target, state), 1
FROM made, (VALUES (1, 'job.submitted', NULL, 'queued'), (2, 'job.started', 'queued', 'running'),
                   (3, 'job.ended', 'running', NULL)) AS e (number, type, source, target)
"""
_NUMBER = """
UPDATE event_segments AS s SET last_seq = n.last_seq FROM (
    SELECT id, at, sum(cardinality(jobs)) OVER (PARTITION BY tenant ORDER BY id) AS last_seq FROM event_segments
) AS n WHERE s.id = n.id AND s.at = n.at
"""


def fill(url: str, finished: int) -> None:
    """Put so many finished jobs into the last weeks, the last of them an hour old."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("TRUNCATE jobs, job_events, event_segments, event_counters")
    span = timedelta(weeks=WEEKS) - timedelta(hours=1)
    when = {"first": datetime.now(UTC) - timedelta(weeks=WEEKS), "step": span / finished}
    for low in range(1, finished + 1, _AT_ONCE):
        cursor.execute(_FILL, {**when, "low": low, "high": min(finished, low + _AT_ONCE - 1)})
    cursor.execute(_NUMBER)
    cursor.execute("INSERT INTO event_counters SELECT tenant, max(last_seq) FROM event_segments GROUP BY tenant")
    cursor.execute("VACUUM (ANALYZE) jobs, job_events, event_segments")
    cursor.execute("CHECKPOINT")
    connection.close()


def _some_ids(url: str, jobs: int) -> list[str]:
    """Ids of jobs of any age, some thousand unless there are fewer, in no order."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(_SOME_IDS, (_SOME, jobs))
        found = [str(row[0]) for row in cursor.fetchall()]
    random.Random(1).shuffle(found)
    return found


class Steps:
    """What a web process, an engine and a worker of one installation do, one call at a time."""

    def __init__(self, stack: Stack, services: Services, jobs: int) -> None:
        place = urlsplit(stack.url)
        self._web = http.client.HTTPConnection(place.hostname or "", place.port)
        self._headers = {"X-API-Key": stack.admin_key, "Content-Type": "application/json"}
        self._services = services
        self._runs = Runs(services.sessions)
        engine = open_engine(stack.stores.database_url, application_name="bench engine", pool_size=1, by_index=True)
        self._slot = a_slot(services.sessions, lease_s=86_400)
        self._leader = Leader(make_sessions(engine), uuid4(), term_s=86_400)
        self._ids = cycle(_some_ids(stack.stores.database_url, jobs))
        self.took_ms: dict[str, list[float]] = {}
        if not self._leader.leads():
            raise SystemExit("another engine leads")

    def one_of_each(self) -> None:
        """Take every step once."""
        self._timed("POST /v1/jobs", self._post)
        self._end(1)
        due = SubmitJob("default", "echo", {}, "bench", run_after=datetime.now(UTC) - timedelta(seconds=1))
        self._services.jobs.submit(due)
        admitted = self._timed("admission", lambda: admit(self._leader, bound=100))
        if admitted != 1:
            raise SystemExit(f"{admitted} jobs were admitted instead of one")
        self._end(1)
        self._timed(READ, self._read)
        for name, filters in _lists().items():
            self._timed(name, lambda filters=filters: self._list(filters))  # type: ignore[misc] # of the loop

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        start = perf_counter()
        answer = step()
        self.took_ms.setdefault(name, []).append((perf_counter() - start) * 1000)
        return answer

    def _post(self) -> None:
        body = json.dumps({"type": "echo", "config": {"value": 1}})
        self._web.request("POST", "/v1/jobs", body, self._headers)
        answer = self._web.getresponse()
        if answer.status != 202:
            raise SystemExit(f"POST /v1/jobs answered {answer.status}: {answer.read()[:500]!r}")
        answer.read()

    def _read(self) -> None:
        self._web.request("GET", f"/v1/jobs/{next(self._ids)}", headers=self._headers)
        answer = self._web.getresponse()
        if answer.status != 200:
            raise SystemExit(f"GET /v1/jobs/ID answered {answer.status}: {answer.read()[:500]!r}")
        answer.read()

    def _end(self, expected: int) -> None:
        claimed = self._timed("claim", lambda: self._runs.claim("small", self._slot, most=50, oldest=False))
        if len(claimed) != expected:
            raise SystemExit(f"{len(claimed)} jobs were claimed instead of {expected}")
        self._timed("end", lambda: self._runs.complete_all([(job, Result()) for job in claimed]))

    def _list(self, filters: tuple[Filters, UUID | None]) -> None:
        which, before = filters
        if not self._services.jobs.find("default", which, limit=51, before=before):
            raise SystemExit(f"no job was found with {which}")


def _lists() -> dict[str, tuple[Filters, UUID | None]]:
    """Lists of a page, by name."""
    now = datetime.now(UTC)
    day = {"created_from": now - timedelta(days=15), "created_until": now - timedelta(days=14)}
    return {
        "list": (Filters(), None),
        "list, two weeks back": (Filters(), partitions.first_id(now - timedelta(days=14))),
        "list by state": (Filters(states=(JobState.FAILED,)), None),
        "list by states": (Filters(states=(JobState.FAILED, JobState.COMPLETED)), None),
        "list by type": (Filters(types=("echo",)), None),
        "list by a type of few": (Filters(types=("insert_csv_file",)), None),
        "list by a type of fifty, weeks back": (Filters(types=("export_csv_file",)), None),
        "list by a label of few": (Filters(labels={"run": "nightly"}), None),
        "list by a label of fifty, weeks back": (Filters(labels={"run": "first"}), None),
        "list by time": (Filters(**day), None),
    }


@pytest.mark.feature("S2-49")
def measure(stacks: tuple[Stack, Stack], *, few: int, finished: int, calls: int) -> list[dict[str, Any]]:
    few_steps, many_steps = (_filled(stack, jobs) for stack, jobs in zip(stacks, (few, finished), strict=True))
    for call in range(calls + _WARM):
        if call == _WARM:
            few_steps.took_ms, many_steps.took_ms = {}, {}
        few_steps.one_of_each()
        many_steps.one_of_each()
    results = []
    for name, took_ms in few_steps.took_ms.items():
        before_ms, after_ms = statistics.median(took_ms), statistics.median(many_steps.took_ms[name])
        print(f"  {name}: p50 {before_ms:.2f} ms, {after_ms:.2f} ms, {after_ms / before_ms:.2f}", flush=True)
        title = f"{name}, p50 beside {finished:,} finished jobs over {few:,} (less is better)"
        results.append({"name": title, "ratio": round(after_ms / before_ms, 3), "goal": GOAL, "runs": calls})
    read_ms = p95_of(many_steps.took_ms[READ])
    title = f"{READ} beside {finished:,} finished jobs, p95 in ms (less is better)"
    return [*results, entry(title, read_ms, READ_GOAL_MS, runs=calls)]


def _filled(stack: Stack, jobs: int) -> Steps:
    start = perf_counter()
    services = build_services(from_env(stack.environment), application_name="bench", pool_size=2)
    for week in range(WEEKS + 1):
        with services.sessions.begin() as session:
            partitions.prepare(session, now=datetime.now(UTC) - timedelta(weeks=week))
    fill(stack.stores.database_url, jobs)
    print(f"{jobs:,} finished jobs in {perf_counter() - start:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True)
    return Steps(stack, services, jobs)


@contextmanager
def _installation(folder: Path, port: int) -> Iterator[Stack]:
    tuned = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
    stack = Stack(folder, port=port, processes=["web"], postgres_settings=tuned, throw_away=True)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()
        stack.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--finished", type=int, default=5_000_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    with ExitStack() as running:
        running.callback(shutil.rmtree, folder, ignore_errors=True)
        few = running.enter_context(_installation(folder / "few", 9700))
        many = running.enter_context(_installation(folder / "many", 9710))
        keep(asked.json, measure((few, many), few=asked.few, finished=asked.finished, calls=asked.calls))


if __name__ == "__main__":
    main()
