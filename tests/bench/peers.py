"""What others do with small jobs: raw Celery and BullMQ, each with two worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter, sleep

import redis

from tests.bench.raw_celery import app, echo

WORKERS = 2
PATIENCE_S = 180.0
_BULLMQ = Path(__file__).with_name("bullmq.mjs")


@contextmanager
def processes(commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run ``commands`` side by side; they are ended at the end."""
    with log.open("ab") as told:
        running = [
            subprocess.Popen(command, env={**os.environ, **environment}, stdout=told, stderr=told)
            for command in commands
        ]
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def celery_worker(app_name: str, name: str, *options: str) -> Sequence[str]:
    """The command of a solo worker."""
    celery = str(Path(sys.executable).with_name("celery"))
    always = ["--pool", "solo", "-n", f"{name}@%h", "--without-gossip", "--without-mingle"]
    return [celery, "--quiet", "-A", app_name, "worker", *always, *options]


def wait_until(condition: Callable[[], bool], *, every_s: float = 0.01) -> None:
    """Look again and again; ends the program when it takes too long."""
    end = perf_counter() + PATIENCE_S
    while not condition():
        if perf_counter() > end:
            raise SystemExit(f"waited {PATIENCE_S:g} s in vain")
        sleep(every_s)


def drain_rate(left: Callable[[], int], jobs: int, *, every_s: float = 0.01) -> float:
    """Jobs a second, from the tenth part of ``jobs`` that is done to the last."""
    wait_until(lambda: left() <= jobs * 0.9, every_s=every_s)
    first_left, first_at = left(), perf_counter()
    wait_until(lambda: left() == 0, every_s=every_s)
    return first_left / (perf_counter() - first_at)


class RawCelery:
    """Two solo workers; a job counts as done when its message is gone, which is all that can be asked."""

    def __init__(self, redis_url: str, log: Path) -> None:
        self._environment = {"HAULIER_BENCH_REDIS_URL": redis_url}
        self._redis = redis.Redis.from_url(redis_url)
        self._log = log
        app.conf.broker_url = redis_url

    def in_bulk(self, jobs: int) -> float:
        """Jobs a second from the first ``delay`` to the end of the last job, workers being warm."""
        self._redis.flushdb()
        with self._workers():
            self._work_off(200)
            start = perf_counter()
            self._work_off(jobs)
            return jobs / (perf_counter() - start)

    def drain(self, jobs: int) -> float:
        """Jobs a second that two workers take from a queue that is full when they start."""
        self._redis.flushdb()
        for number in range(jobs):
            echo.delay(number)
        with self._workers():
            return drain_rate(self._left, jobs)

    def _work_off(self, jobs: int) -> None:
        for number in range(jobs):
            echo.delay(number)
        wait_until(lambda: self._left() == 0)

    def _left(self) -> int:
        return int(self._redis.llen("celery")) + int(self._redis.hlen("unacked"))

    def _workers(self) -> AbstractContextManager[None]:
        commands = [celery_worker("tests.bench.raw_celery", f"raw{number}", "-l", "ERROR") for number in range(WORKERS)]
        return processes(commands, self._environment, self._log)


class BullMQ:
    """Two Node processes, 25 jobs at once each; ``folder`` has bullmq below its ``node_modules``."""

    def __init__(self, folder: Path, redis_url: str, log: Path) -> None:
        self._environment = {"BULLMQ": str(folder), "REDIS_URL": redis_url}
        self._log = log

    def in_bulk(self, jobs: int) -> float:
        """Jobs a second from the first ``addBulk`` to the end of the last job, workers being warm."""
        with processes([["node", str(_BULLMQ), "worker"]] * WORKERS, self._environment, self._log):
            command = ["node", str(_BULLMQ), "client", str(jobs)]
            environment = {**os.environ, **self._environment}
            told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            return jobs / float(told.stdout)


def bullmq(redis_url: str, log: Path) -> BullMQ | None:
    """BullMQ when ``HAULIER_BENCH_NODE`` says where it is."""
    folder = Path(os.environ.get("HAULIER_BENCH_NODE", ""))
    return BullMQ(folder, redis_url, log) if (folder / "node_modules" / "bullmq").is_dir() else None
