"""A whole Haulier on this machine: the stores, the processes of the Procfile, and the files that describe them.

In its data directory: ``secrets.json``, ``up.lock`` (held while it runs: process number and start time of its owner),
``up.json`` (mode 0600: addresses, key, process numbers), ``logs/``, and a folder for each store.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import requests

from app.domain.access import Role
from app.domain.clock import SystemClock
from app.persistence.migrate import upgrade
from app.persistence.sessions import make_sessions, open_engine
from app.runtime import processes, reaper, supervisor
from app.runtime.errors import RuntimeStateError, StoreStartError
from app.runtime.ports import HOST, block, release
from app.runtime.stack_secrets import store, write_private
from app.runtime.stores import StorePorts, Stores
from app.runtime.supervisor import Echo, Supervisor
from app.services.keys import Keys
from config import process

FIRST_PORT: Final = 8600

_WEB_START_TIMEOUT_S: Final = 60.0


class Stack:
    """Haulier with its stores below one data directory.

    Every process ends when the process that started the stack ends, in whatever way; the next start on the same data
    directory ends what a kill of everything may have left.

    Args:
        data_dir: Made when missing.
        port: First of the block of ports: web, Flower, S3, Redis, Postgres. Where one is taken, any free one is used.
        processes: Names of the Procfile's processes to run; None means all.
        environment: Variables for the processes, over ours and below those that name the stores.
        postgres_binaries: A folder with ``initdb`` and ``postgres``; None means the bundled PostgreSQL 18.
        postgres_settings: Server settings by name.
        bucket: The bucket of tenant ``default``.
        echo: Gets each line the processes print, with the process's name.
        throw_away: Delete the data directory when the starter dies without ``stop`` or ``remove``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = FIRST_PORT,
        processes: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        postgres_binaries: Path | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        bucket: str = "haulier",
        echo: Echo | None = None,
        throw_away: bool = False,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._first_port = port
        self._programs = _chosen(processes)
        self._given = dict(environment or {})
        self._postgres_binaries = postgres_binaries
        self._postgres_settings = postgres_settings
        self._bucket = bucket
        self._echo = echo
        self._throw_away = throw_away
        self._lock: IO[str] | None = None
        self._mark = _mark(self.data_dir)
        self._supervisor: Supervisor | None = None

    @cached_property
    def _ports(self) -> list[int]:
        return block(self._first_port, 5)

    @cached_property
    def stores(self) -> Stores:
        """The stores; their addresses are known before they run."""
        return Stores(
            self.data_dir,
            ports=StorePorts(s3=self._ports[2], redis=self._ports[3], postgres=self._ports[4]),
            postgres_binaries=self._postgres_binaries,
            postgres_settings=self._postgres_settings,
            buckets=(self._bucket,),
            mark=self._mark,
            throw_away=self._throw_away,
        )

    @property
    def url(self) -> str:
        """Where the web process listens."""
        return f"http://{HOST}:{self._ports[0]}"

    @property
    def flower_url(self) -> str | None:
        """Where Flower listens; None when it does not run."""
        runs = any(program.name == "flower" for program in self._programs)
        return f"http://{HOST}:{self._ports[1]}" if runs else None

    @property
    def admin_key(self) -> str:
        """The key with the role admin for tenant ``default``.

        Raises:
            RuntimeStateError: The stack has never been started.
        """
        if self.stores.secrets.admin_key is None:
            raise RuntimeStateError(f"{self.data_dir} has no admin key yet: start the stack first")
        return self.stores.secrets.admin_key

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the stack's processes; also what a command needs to work on its stores."""
        ours = process.environment()
        slots = {} if process.settings().parallel_jobs else {"HAULIER_PARALLEL_JOBS": str(os.cpu_count() or 1)}
        return {
            **ours,
            **slots,
            **self._given,
            **self.stores.environment(),
            "HAULIER_HOST": HOST,
            "HAULIER_PORT": str(self._ports[0]),
            "HAULIER_FLOWER_PORT": str(self._ports[1]),
            "HAULIER_NODE": f"{socket.gethostname()}-{self._ports[0]}",
            processes.MARK: self._mark,
        }

    def pids(self) -> dict[str, int]:
        """The process of everything that runs now, by the Procfile's name, ``postgres``, ``valkey`` and ``objects``."""
        servers = {"postgres": self.stores.postgres, "valkey": self.stores.valkey, "objects": self.stores.objects}
        running = {name: server.pid for name, server in servers.items() if server.is_running()}
        return {**running, **(self._supervisor.pids() if self._supervisor is not None else {})}

    def restarts(self) -> dict[str, int]:
        """How often each of the Procfile's processes was started again."""
        return self._supervisor.restarts() if self._supervisor is not None else {}

    def start(self, *, told: Callable[[str], None] = lambda _: None) -> None:
        """Start the stores, bring the database up to date, start the processes, and wait until the web answers.

        Args:
            told: Gets a short line before each step.
        Raises:
            RuntimeStateError: Another stack runs on the data directory, or it cannot be used.
            StoreStartError: A store or the web process did not come up.
        """
        self._take_lock()
        try:
            end_leftovers(self.data_dir)
            (self.data_dir / "up.json").unlink(missing_ok=True)
            told("starting PostgreSQL, Valkey and S3")
            self.stores.start()
            told("bringing the database up to date")
            upgrade(self.stores.database_url)
            self._see_to_admin_key()
            told(f"starting {', '.join(program.name for program in self._programs)}")
            self._start_processes()
            self._wait_for_web()
            self.write_state()
        except BaseException:
            self.stop(grace_s=5.0)
            raise

    def stop(self, *, grace_s: float = supervisor.STOP_GRACE_S) -> None:
        """Stop workers, then the other processes, then the stores; harmless when nothing runs.

        Args:
            grace_s: How long workers, and then the others, may take before they are killed.
        """
        if self._lock is None:
            return
        if self._supervisor is not None:
            self._supervisor.stop(grace_s=grace_s)
            self._supervisor = None
        (self.data_dir / "up.json").unlink(missing_ok=True)
        if "stores" in self.__dict__:
            self.stores.stop()
        # A later start chooses its ports anew.
        release(self.__dict__.pop("_ports", ()))
        self.__dict__.pop("stores", None)
        self._lock.truncate(0)
        self._lock.close()
        self._lock = None

    def hurry(self) -> None:
        """Make a ``stop`` that waits for jobs to hand back kill the workers instead."""
        if self._supervisor is not None:
            self._supervisor.hurry()

    def remove(self) -> None:
        """Stop the stack and delete its data."""
        self.stop()
        remove_data(self.data_dir)

    def write_state(self) -> None:
        """Write ``up.json``: what clients on this machine and ``haulier down`` need."""
        write_private(self.data_dir / "up.json", json.dumps(self.state(), indent=2) + "\n")

    def _renew_state(self) -> None:
        """Bring the process numbers in ``up.json`` up to date; the file is there only once everything is up."""
        if (self.data_dir / "up.json").exists():
            with suppress(OSError):
                self.write_state()

    def state(self) -> dict[str, Any]:
        """Addresses, credentials and process numbers of the running stack."""
        return {
            "url": self.url,
            "key": self.admin_key,
            "flower_url": self.flower_url,
            "database_url": self.stores.database_url,
            "redis_url": self.stores.redis_url,
            "s3_endpoint": self.stores.s3_endpoint,
            "s3_access_key_id": self.stores.s3_access_key_id,
            "s3_secret_access_key": self.stores.s3_secret_access_key,
            "s3_bucket": self._bucket,
            "data": str(self.data_dir),
            "pid": os.getpid(),
            "pids": self.pids(),
        }

    def _take_lock(self) -> None:
        if self._lock is not None:
            raise RuntimeStateError(f"the stack of {self.data_dir} has already been started")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = take_lock(self.data_dir)
        if lock is None:
            runner = owner(self.data_dir)
            raise RuntimeStateError(
                f"a stack already runs on {self.data_dir}" + (f" (process {runner.pid})" if runner else ""),
                hint=f"Stop it with 'haulier down --data {self.data_dir}', or choose another folder with --data.",
            )
        self._lock = lock

    def _see_to_admin_key(self) -> None:
        """Make the admin key at the first start.

        A kill between making the key and keeping it leaves a key that nobody knows, and the next start makes another.
        """
        if self.stores.secrets.admin_key is not None:
            return
        engine = open_engine(self.stores.database_url, application_name="haulier up", pool_size=1)
        try:
            key, _ = Keys(make_sessions(engine), SystemClock()).create(
                "default", Role.ADMIN, label="haulier up", created_by="haulier up"
            )
        finally:
            engine.dispose()
        known = replace(self.stores.secrets, admin_key=key)
        store(self.data_dir / "secrets.json", known)
        self.stores.secrets = known

    def _start_processes(self) -> None:
        self._supervisor = Supervisor(
            self._programs,
            self.environment,
            self.data_dir / "logs",
            echo=self._echo,
            changed=self._renew_state,
        )
        self._supervisor.start()

    def _wait_for_web(self) -> None:
        if not any(program.name == "web" for program in self._programs):
            return
        deadline = time.monotonic() + _WEB_START_TIMEOUT_S
        while time.monotonic() < deadline:
            # Whatever it says: an answer shows that it is up.
            with suppress(requests.RequestException):
                requests.get(f"{self.url}/v1/health", timeout=2)
                return
            time.sleep(0.1)
        log = self.data_dir / "logs" / "web.log"
        shown = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        raise StoreStartError(
            f"the web process did not answer at {self.url} within {_WEB_START_TIMEOUT_S:g} s.\n"
            f"Last lines of {log}:\n" + "\n".join(f"  {line}" for line in shown)
        )


def _mark(data_dir: Path) -> str:
    return processes.mark(data_dir, secrets.token_hex(4))


def _chosen(names: Sequence[str] | None) -> list[supervisor.Program]:
    programs = supervisor.procfile()
    if names is None:
        return programs
    known = {program.name for program in programs}
    if unknown := set(names) - known:
        raise RuntimeStateError(f"processes must be among {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    return [program for program in programs if program.name in names]


def take_lock(data_dir: Path) -> IO[str] | None:
    """Take the data directory for this process until the file is closed; None when another process has it."""
    lock = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.truncate(0)
    ourselves = processes.process(os.getpid())
    if ourselves is not None:
        lock.write(f"{ourselves.pid} {ourselves.started_ticks}\n")
    lock.flush()
    return lock


def owner(data_dir: Path) -> processes.Process | None:
    """The process that runs the stack of ``data_dir``; None when there is none."""
    try:
        pid, started_ticks = (int(word) for word in (data_dir / "up.lock").read_text().split())
    except (OSError, ValueError):
        return None
    found = processes.Process(pid, started_ticks)
    return found if found.is_alive() else None


def end_leftovers(data_dir: Path) -> int:
    """End what a killed stack has left running; the caller holds the lock. Returns how many processes there were."""
    folders = Stores(data_dir).folders() if (data_dir / "secrets.json").exists() else []
    left = len(processes.of_data_dir(data_dir)) + sum(len(processes.servers_in(folder)) for folder in folders)
    if left:
        reaper.reap(processes.mark_of(data_dir), folders)
    return left


def down(data_dir: Path, *, timeout_s: float = 90.0) -> bool:
    """Stop the stack that runs on ``data_dir``, in this or another process group; whether there was anything to stop.

    Args:
        timeout_s: After it the owner is killed; its processes die with it.
    """
    data_dir = data_dir.resolve()
    if not data_dir.is_dir():
        return False
    runner = None
    deadline = time.monotonic() + timeout_s + 30.0
    while (lock := take_lock(data_dir)) is None:
        if runner is None and (runner := owner(data_dir)) is not None:
            processes.end([runner], grace_s=timeout_s)
        if time.monotonic() > deadline:
            raise RuntimeStateError(f"the stack of {data_dir} did not stop within {timeout_s + 30:g} s")
        time.sleep(0.05)
    with lock:
        left = end_leftovers(data_dir)
        (data_dir / "up.json").unlink(missing_ok=True)
        lock.truncate(0)
    return runner is not None or left > 0


def remove_data(data_dir: Path) -> None:
    """Delete a data directory that no stack uses, and the database if it lives outside."""
    if (data_dir / "secrets.json").exists():
        Stores(data_dir).remove()
    shutil.rmtree(data_dir, ignore_errors=True)
