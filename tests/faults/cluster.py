"""A whole installation as processes of its own, with short leases, for tests that kill parts of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from app.bootstrap import Services, build_services
from app.domain.jobs import Job, SubmitJob
from app.domain.lifecycle import JobState, is_legal
from app.persistence.migrate import upgrade
from app.persistence.sessions import make_sessions, open_engine
from app.runtime.stores import Stores
from config.settings import Settings

LEASE_S = 3.0
BUCKET = "haulier-test"


class Part:
    """One process and its children, as a process group."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group."""
        os.killpg(self.pid, number)

    def send_main(self, number: signal.Signals) -> None:
        """Signal only the main process."""
        os.kill(self.pid, number)

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def end(self) -> None:
        """Kill what is left of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def wait(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


class Cluster:
    """Engines and workers on stores of their own."""

    def __init__(self, stores: Stores, folder: Path, **environment: str) -> None:
        self.stores = stores
        self.folder = folder
        self.parts: list[Part] = []
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HAULIER_DATABASE_URL": stores.database_url,
            "HAULIER_REDIS_URL": stores.redis_url,
            "HAULIER_S3_ENDPOINT": stores.s3_endpoint,
            "HAULIER_S3_ACCESS_KEY_ID": stores.s3_access_key_id,
            "HAULIER_S3_SECRET_ACCESS_KEY": stores.s3_secret_access_key,
            "HAULIER_S3_BUCKET": BUCKET,
            "HAULIER_LEASE_S": str(LEASE_S),
            "HAULIER_ENGINE_TERM_S": "2",
            "HAULIER_KILL_GRACE_S": "1",
            "HAULIER_JOB_TYPES_PACKAGE": "tests.faults.job_types",
            # The coverage of a part is the test run's, when that is measured.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            **environment,
        }
        upgrade(stores.database_url)
        self.engine: Engine = open_engine(
            stores.database_url, application_name="fault tests", pool_size=4, pre_ping=True
        )
        self.sessions = make_sessions(self.engine)
        with self.sessions.begin() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS effects (job_id uuid, step int, fence int)"))
            tables = "effects, jobs, job_events, event_segments, workers, leaders, queues, limits, schedules"
            session.execute(text(f"TRUNCATE {tables}, schedule_fires"))
        self.services: Services = build_services(self.settings(), application_name="fault client", pool_size=4)

    def settings(self) -> Settings:
        names = {
            k.removeprefix("HAULIER_").lower(): v for k, v in self._environment.items() if k.startswith("HAULIER_")
        }
        return Settings(**names)

    def _start(self, name: str, *command: str) -> Part:
        tools = Path(sys.executable).parent
        log = self.folder / f"{name}.log"
        part = Part(name, [str(tools / command[0]), *command[1:]], self._environment, log)
        self.parts.append(part)
        return part

    def start_engine(self, name: str = "engine") -> Part:
        return self._start(name, "haulier", "engine")

    def start_web(self) -> Part:
        return self._start("web", "haulier", "web")

    def start_beat(self, name: str = "beat") -> Part:
        return self._start(name, "celery", "-A", "tasks", "beat")

    def launch_worker(self, name: str, *, queue: str, pool: str, slots: int) -> Part:
        """A worker that is not waited for."""
        return self._start(
            name, "celery", "-A", "tasks", "worker", "-Q", queue, "-n", f"{name}@%h", "--pool", pool, "-c", str(slots),
            "--without-gossip", "--without-mingle",
        )  # fmt: skip

    def start_worker(self, name: str = "data", *, queue: str = "data", pool: str = "prefork", slots: int = 2) -> Part:
        part = self.launch_worker(name, queue=queue, pool=pool, slots=slots)
        wanted = slots if pool != "solo" else 1
        eventually(lambda: self._slots(name) >= wanted, within_s=60, what=f"{name} registers", log=part.log)
        return part

    def _slots(self, worker: str) -> int:
        return self.count("workers WHERE process LIKE :name AND lease_until > clock_timestamp()", name=f"{worker}@%")

    def count(self, from_where: str, **bound: Any) -> int:
        with self.sessions.begin() as session:
            return int(session.execute(text(f"SELECT count(*) FROM {from_where}"), bound).scalar_one())

    def submit(self, job_type: str, count: int = 1, **config: Any) -> list[UUID]:
        return [
            self.services.jobs.submit(
                SubmitJob(tenant="default", type=job_type, config=config, created_by="test")
            ).job.id
            for _ in range(count)
        ]

    def jobs(self, ids: Sequence[UUID]) -> list[Job]:
        return [job for job in self.services.jobs.batch_get("default", ids) if job is not None]

    def states(self, ids: Sequence[UUID]) -> Counter[JobState]:
        return Counter(job.state for job in self.jobs(ids))

    def wait_for(self, state: JobState, ids: Sequence[UUID], *, at_least: int = 1, within_s: float = 30) -> None:
        eventually(
            lambda: self.states(ids)[state] >= at_least,
            within_s=within_s,
            what=lambda: f"{at_least} {state}; {self._told(ids)}",
        )

    def pause(self) -> None:
        """A moment between two looks."""
        sleep(0.05)

    def wait_for_steps(self, at_least: int = 1, *, within_s: float = 30) -> None:
        """Until effects were committed, so that the next transaction of each job is open."""
        eventually(lambda: self.count("effects") >= at_least, within_s=within_s, what=f"{at_least} effects")

    def wait_for_all(self, ids: Sequence[UUID], *, within_s: float = 60) -> None:
        def ended() -> bool:
            return all(job.is_terminal for job in self.jobs(ids))

        eventually(ended, within_s=within_s, what=lambda: f"the end of all jobs; {self._told(ids)}")

    def _told(self, ids: Sequence[UUID]) -> str:
        """The trails of the first jobs, those that have not ended first; the slots; how each log ends."""
        lines = [str(self.states(ids))]
        for job in sorted(self.jobs(ids), key=lambda job: job.is_terminal)[:5]:
            trail = self.services.jobs.events("default", job.id, after=0, limit=1000)
            lines += [f"{job.id} {job.state}, fence {job.fence}, {job.updated_at:%T}"]
            lines += [f"  {event.at:%T} {event.type} {event.data}" for event in trail]
        with self.sessions.begin() as session:
            lines += [str(tuple(row)) for row in session.execute(text("SELECT *, now() FROM workers"))]
        return "\n".join(lines + [f"{part.name}: {part.log()[-1500:]}" for part in self.parts])

    def assert_sound(self, ids: Sequence[UUID], *, steps: int = 0, max_rescues: int = 5) -> None:
        """The invariants: all completed, effects exactly once, a legal trail without a gap, bounded attempts."""
        jobs = self.jobs(ids)
        assert len(jobs) == len(ids)
        assert {job.state for job in jobs} == {JobState.COMPLETED}, [job.error for job in jobs if job.error]
        if steps:
            assert self.count("effects") == steps * len(ids)
            assert self.count("(SELECT DISTINCT job_id, step FROM effects) AS e") == steps * len(ids)
        for job in jobs:
            assert job.attempts <= job.retry.maximum_attempts
            assert job.rescues <= max_rescues
            self.assert_legal_trail(job)

    def assert_legal_trail(self, job: Job) -> None:
        trail = self.services.jobs.events("default", job.id, after=0, limit=1000)
        assert [event.number for event in trail] == list(range(1, job.event_no + 1))
        at = None
        for event in trail:
            assert event.source == at or event.number == 1
            assert event.source is None or event.source == event.target or is_legal(event.source, event.target)
            at = event.target
        assert at == job.state

    def close(self) -> None:
        for part in self.parts:
            part.end()
        self.engine.dispose()


def eventually(
    check: Callable[[], bool], *, within_s: float, what: str | Callable[[], str], log: Callable[[], str] | None = None
) -> None:
    """Wait until ``check`` holds; a store that is away is a normal answer."""
    until = monotonic() + within_s
    while monotonic() < until:
        try:
            if check():
                return
        except DBAPIError:
            pass
        sleep(0.05)
    told = what if isinstance(what, str) else what()
    raise AssertionError(f"not within {within_s} s: {told}\n{log()[-3000:] if log else ''}")
