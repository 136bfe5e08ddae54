"""An installation that is measured as a whole: jobs are submitted to its API, and its own workers run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import requests
from sqlalchemy import text

from app.domain.ports import ObjectRef
from app.persistence.sessions import Sessions
from app.runtime.stack import Stack
from app.runtime.supervisor import Supervisor, procfile
from app.storage.s3 import S3Store

_OVER = ("completed", "failed", "cancelled")


class Ask(Protocol):
    """Sends a request with a JSON body and gives the JSON of its answer; any refusal ends the program."""

    def __call__(self, method: str, path: str, body: Any = None, /) -> Any: ...


def asker(url: str, key: str) -> Ask:
    """One that keeps its connections."""
    session = requests.Session()
    session.headers["X-API-Key"] = key

    def ask(method: str, path: str, body: Any = None, /) -> Any:
        answer = session.request(method, f"{url}{path}", json=body, timeout=120)
        if not answer.ok:
            raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()

    return ask


@dataclass(frozen=True)
class Ran:
    """A job that completed.

    Args:
        rows: That it read or wrote.
        peak_mb: The most memory that its worker process held while it ran, in MiB.
    """

    id: str
    started_at: datetime
    finished_at: datetime
    rows: int
    peak_mb: float
    result: dict[str, Any]

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def rows_per_s(self) -> float:
        """Of the whole run."""
        return self.rows / self.seconds


@dataclass(frozen=True)
class Installation:
    """A stack that runs, and the ways to it."""

    stack: Stack
    ask: Ask
    objects: S3Store
    sessions: Sessions
    bucket: str

    def submit(self, kind: str, config: dict[str, Any]) -> str:
        """Submit a job; its id."""
        job_id: str = self.ask("POST", "/v1/jobs", {"type": kind, "config": config})["id"]
        return job_id

    def ended(self, job_id: str) -> Ran:
        """Wait for a job, which must complete."""
        while (job := self.ask("GET", f"/v1/jobs/{job_id}?wait=30"))["state"] not in _OVER:
            pass
        if job["state"] != "completed":
            raise SystemExit(f"job {job_id} is {job['state']}: {job['error']}")
        return Ran(
            job_id,
            datetime.fromisoformat(job["started_at"]),
            datetime.fromisoformat(job["finished_at"]),
            job["progress"]["rows_done"],
            job["metrics"]["peak_rss_mb"],
            self.ask("GET", f"/v1/jobs/{job_id}/result")["data"],
        )

    def run(self, kind: str, config: dict[str, Any]) -> Ran:
        """Submit a job and wait for it."""
        return self.ended(self.submit(kind, config))

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run the Procfile's worker, a new one: what earlier jobs left in their processes is no memory of its own."""
        worker = [program for program in procfile() if program.name == "worker"]
        supervisor = Supervisor(worker, self.stack.environment, self.stack.data_dir / "logs")
        supervisor.start()
        try:
            yield
        finally:
            supervisor.stop()

    def place(self, name: str) -> ObjectRef:
        """Where a file of that name lies for the tenant."""
        return ObjectRef(self.bucket, f"uploads/{name}")

    def execute(self, *statements: str, **bound: Any) -> None:
        """Run statements on the database, each in a transaction of its own or, like VACUUM, in none."""
        engine = self.sessions.kw["bind"]
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.execute(text(statement), bound)


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_growth(pids: Sequence[int], work: Callable[[], None]) -> float:
    """MiB that ``pids`` hold more at the peak of ``work`` than before it, the most of any one."""
    before_mb = {pid: _memory_mb(pid, "VmRSS") for pid in pids}
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    work()
    return max(_memory_mb(pid, "VmHWM") - before_mb[pid] for pid in pids)


def _memory_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
