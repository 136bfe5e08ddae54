"""``POST /v1/jobs`` against a bare handler, and one job's round trip.

    python -m tests.bench.jobs_bench [--seconds 5] [--runs 3] [--json var/bench.json]

Needs wrk. The bare handler runs on gunicorn, gthread, with 2 processes of 8 threads; requests go to both in turn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from app.runtime.stack import Stack
from tests.bench.results import keep

BODY = (
    '{"type": "echo", "config": {"value": {"bucket": "uploads", "key": "contacts/2024/01/file.csv", '
    '"table": "contacts", "key_column": "uuid"}}}'
)
BARE_BODY = BODY.replace('"value": ', "").replace("}}}", "}}").replace('{{"bucket"', '{"bucket"')
BARE_TABLE = """
DROP TABLE IF EXISTS bare_jobs;
CREATE TABLE bare_jobs (id uuid PRIMARY KEY, type text NOT NULL, status text NOT NULL, payload jsonb,
    created_at timestamptz DEFAULT now(), started_at timestamptz, finished_at timestamptz, error text);
CREATE INDEX ON bare_jobs (status, created_at);
CREATE INDEX ON bare_jobs (type, created_at);
"""
CONNECTIONS = 16


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(statement)
    connection.close()


def _rate(url: str, body: str, key: str, seconds: int, folder: Path) -> float:
    script = folder / "post.lua"
    script.write_text(
        f"wrk.method='POST'; wrk.headers['Content-Type']='application/json'; wrk.headers['X-API-Key']='{key}'; "
        f"wrk.body='{body}'"
    )
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told:
        raise SystemExit(told)
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    return float(found.group(1)) if found else 0.0


@contextmanager
def _bare(environment: dict[str, str], port: int) -> Iterator[str]:
    gunicorn = Path(sys.executable).with_name("gunicorn")
    command = [str(gunicorn), "-k", "gthread", "-w", "2", "--threads", "8", "-b", f"127.0.0.1:{port}",
               "--log-level", "error", "tests.bench.bare_app:app"]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, **environment})
    sleep(3)
    try:
        yield f"http://127.0.0.1:{port}/jobs"
    finally:
        process.terminate()
        process.wait()


def submission(stack: Stack, *, seconds: int, runs: int, folder: Path) -> dict[str, Any]:
    url = stack.stores.database_url
    ratios = []
    with _bare(stack.environment, 9790) as bare_url:
        for _ in range(runs + 1):
            _execute(url, BARE_TABLE)
            bare = _rate(bare_url, BARE_BODY, "-", seconds, folder)
            _execute(url, "TRUNCATE jobs, job_events, event_segments")
            ours = _rate(f"{stack.url}/v1/jobs", BODY, stack.admin_key, seconds, folder)
            ratios.append(ours / bare)
            print(f"POST /v1/jobs: {ours:,.0f}/s, bare {bare:,.0f}/s, ratio {ours / bare:.2f}", flush=True)
    ratio = statistics.median(ratios[1:])
    return {
        "name": "POST /v1/jobs against a bare INSERT and LPUSH",
        "ratio": round(ratio, 3),
        "goal": 0.8,
        "runs": runs,
    }


def round_trip(stack: Stack, *, jobs: int = 300) -> dict[str, Any]:
    place = urlsplit(stack.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    headers = {"X-API-Key": stack.admin_key, "Content-Type": "application/json"}
    took_ms = []
    for number in range(jobs + 20):
        start = perf_counter()
        body = json.dumps({"type": "echo", "config": {"value": number}})
        connection.request("POST", "/v1/jobs?wait=10", body, headers)
        job = json.loads(connection.getresponse().read())
        took_ms.append((perf_counter() - start) * 1000)
        if job["state"] != "completed":
            raise SystemExit(f"a job did not complete: {job}")
    p50, p99 = statistics.median(took_ms[20:]), sorted(took_ms[20:])[int(jobs * 0.99) - 1]
    print(f"round trip of one job: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)
    return {"name": "round trip of one job, p50 ms (less is better)", "ratio": round(p50, 2), "goal": 15, "runs": jobs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    tuned = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
    # The rates of both handlers are measured without workers, which would take the same two cores.
    results = []
    if shutil.which("wrk"):
        stack = Stack(folder / "web", port=9700, processes=["web"], postgres_settings=tuned, throw_away=True)
        stack.start()
        try:
            results.append(submission(stack, seconds=asked.seconds, runs=asked.runs, folder=folder))
        finally:
            stack.stop()
            stack.remove()
    else:
        print("POST /v1/jobs: left out, wrk is not installed")
    stack = Stack(
        folder / "all", port=9700, processes=["web", "engine", "small"], postgres_settings=tuned, throw_away=True
    )
    stack.start()
    try:
        sleep(5)
        results.append(round_trip(stack))
    finally:
        stack.stop()
        stack.remove()
        shutil.rmtree(folder, ignore_errors=True)
    keep(asked.json, results)


if __name__ == "__main__":
    main()
