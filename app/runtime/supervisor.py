"""Keeps the processes of a Procfile running, shows what they say, and stops them in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import IO, Final

from app.runtime.errors import RuntimeStateError

FIRST_BACK_OFF_S: Final = 0.5
LONGEST_BACK_OFF_S: Final = 10.0
SETTLED_AFTER_S: Final = 30.0
STOP_GRACE_S: Final = 30.0

_LINE: Final = re.compile(r"^([A-Za-z0-9_-]+):\s*(\S.*)$")

# What makes work ends before what the work needs: jobs go back to the queue while the engine is still there.
_STOPPED_FIRST: Final = frozenset({"worker", "small", "http", "retry", "beat"})

Echo = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Program:
    """One line of a Procfile: ``command`` is for ``sh``."""

    name: str
    command: str


def procfile() -> list[Program]:
    """The processes of Haulier, from the Procfile that comes with this package."""
    return read_procfile((files("app.runtime") / "Procfile").read_text())


def read_procfile(text: str) -> list[Program]:
    """The programs of a Procfile in its order; blank lines and lines with ``#`` in front are skipped.

    Raises:
        RuntimeStateError: A line is not ``name: command``, or a name comes twice.
    """
    programs: dict[str, Program] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None or found[1] in programs:
            raise RuntimeStateError(f"Procfile line {number}: expected 'name: command' with a new name, got {line!r}")
        programs[found[1]] = Program(found[1], found[2])
    return list(programs.values())


def back_off_s(failures: int) -> float:
    """How long to wait before the start after ``failures`` (1 or more) ends in a row."""
    return min(FIRST_BACK_OFF_S * 2.0 ** min(failures - 1, 10), LONGEST_BACK_OFF_S)


@dataclass
class _Child:
    """A program and its current process."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at_s: float = 0.0
    failures: int = 0
    starts: int = 0
    due_at_s: float = 0.0
    readers: list[threading.Thread] = field(default_factory=list)


class Supervisor:
    """Runs programs until it is told to stop; one that exits is started again after a pause that grows.

    Args:
        programs: What to run.
        environment: Of the processes, complete.
        logs: Each process's output is appended to ``<logs>/<name>.log``.
        echo: Gets each line of output with its process's name, from several threads; None shows nothing.
        changed: Called from the watching thread after processes were started again.
        log_limit_bytes: A log that has grown past this becomes ``<name>.log.1``, in place of the one before.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        environment: Mapping[str, str],
        logs: Path,
        *,
        echo: Echo | None = None,
        changed: Callable[[], None] | None = None,
        log_limit_bytes: int = 20 * 1024 * 1024,
    ) -> None:
        self._children = {program.name: _Child(program) for program in programs}
        self._environment = {**environment, "PYTHONUNBUFFERED": "1", "PATH": _path(environment)}
        self._logs = logs
        self._echo = echo
        self._changed = changed
        self._log_limit_bytes = log_limit_bytes
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start every program and watch over them."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for child in self._children.values():
            self._start(child)
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def pids(self) -> dict[str, int]:
        """The process of each program that runs now."""
        with self._lock:
            return {
                name: child.process.pid
                for name, child in self._children.items()
                if child.process is not None and child.process.poll() is None
            }

    def restarts(self) -> dict[str, int]:
        """How often each program was started again."""
        return {name: max(child.starts - 1, 0) for name, child in self._children.items()}

    def hurry(self) -> None:
        """Make a ``stop`` that is waiting kill what is left."""
        self._hurry.set()

    def stop(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """End the workers, then the rest; what has not ended after ``grace_s`` is killed, with all its children."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        first = [child for name, child in self._children.items() if name in _STOPPED_FIRST]
        rest = [child for name, child in self._children.items() if name not in _STOPPED_FIRST]
        for group in (first, rest):
            self._end(group, grace_s)

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            started = False
            for child in self._children.values():
                if child.process is None:
                    if time.monotonic() >= child.due_at_s:
                        started = self._started_again(child) or started
                elif child.process.poll() is not None:
                    self._ended(child)
            if started and self._changed is not None:
                self._changed()

    def _started_again(self, child: _Child) -> bool:
        try:
            self._start(child)
        except OSError as error:
            # No process or file to be had just now; the others must be watched all the same.
            child.failures += 1
            child.due_at_s = time.monotonic() + back_off_s(child.failures)
            self._say(child.program.name, f"could not be started: {error}")
            return False
        return True

    def _start(self, child: _Child) -> None:
        with self._lock:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {child.program.command}"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches only us, and we can end a process with all its children.
                start_new_session=True,
            )
            child.process = process
        child.started_at_s = time.monotonic()
        child.starts += 1
        child.readers = [one for one in child.readers if one.is_alive()]
        reader = threading.Thread(
            target=self._forward,
            args=(child.program.name, process.stdout),
            name=f"log {child.program.name}",
            daemon=True,
        )
        child.readers.append(reader)
        reader.start()

    def _ended(self, child: _Child) -> None:
        if child.process is None:
            return
        _kill_group(child.process.pid)
        up_s = time.monotonic() - child.started_at_s
        child.failures = 1 if up_s >= SETTLED_AFTER_S else child.failures + 1
        pause_s = back_off_s(child.failures)
        child.due_at_s = time.monotonic() + pause_s
        self._say(child.program.name, f"ended with {_how(child.process.returncode)}; starts again in {pause_s:g} s")
        with self._lock:
            child.process = None

    def _end(self, children: Sequence[_Child], grace_s: float) -> None:
        processes = [child.process for child in children if child.process is not None]
        for process in processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.terminate()
        deadline = time.monotonic() + grace_s
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline or self._hurry.is_set():
                break
            time.sleep(0.05)
        for process in processes:
            # Also when the process has ended in order: a child may have stayed behind.
            _kill_group(process.pid)
            process.wait()
        for child in children:
            for reader in child.readers:
                reader.join(timeout=5)

    def _forward(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._log(name, line)
                if self._echo is not None:
                    self._echo(name, line.decode(errors="replace").rstrip("\n"))

    def _say(self, name: str, line: str) -> None:
        """Our own word about a process, among its lines."""
        self._log(name, f"supervisor: {line}\n".encode())
        if self._echo is not None:
            self._echo(name, line)

    def _log(self, name: str, line: bytes) -> None:
        file = self._logs / f"{name}.log"
        # A full disk costs lines, not the process: one whose output nobody reads would soon stand still.
        with suppress(OSError):
            with file.open("ab") as log:
                log.write(line)
                size_bytes = log.tell()
            if size_bytes > self._log_limit_bytes:
                file.replace(file.with_name(file.name + ".1"))


def _kill_group(pid: int) -> None:
    """Kill every process of the group that ``pid`` leads or led; its number is not given away while the group lives."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def _path(environment: Mapping[str, str]) -> str:
    """Our own programs (``celery``, ``haulier``) first."""
    return os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
