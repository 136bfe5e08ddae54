"""Which processes belong to a data directory, and how to end them.

A process is known by its number and its start time together, so that a number used again is never mistaken for it. A
store is recognised by its program and the folder it works in, everything else by the variable ``HAULIER_STACK`` in its
environment, which children inherit whatever session or process group they move to. Reads ``/proc``, so Linux only.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

MARK: Final = "HAULIER_STACK"

_PROC: Final = Path("/proc")
_SERVERS: Final = ("postgres", "valkey-server", "redis-server")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that may have ended since.

    Args:
        pid: Its number.
        started_ticks: When it started, in clock ticks since boot; with ``pid`` it is unique until the next boot.
    """

    pid: int
    started_ticks: int

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that ended and waits for its parent does not."""
        return _stat(self.pid) == (self.started_ticks, True)

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it still is the same one."""
        if self.is_alive():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    @property
    def command_line(self) -> list[str]:
        """Program and arguments; empty when the process is gone or not ours to look at."""
        try:
            return (_PROC / str(self.pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:
            return []


def _stat(pid: int) -> tuple[int, bool] | None:
    """Start time in clock ticks since boot, and whether the process still runs (is no zombie)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets and may itself hold blanks and brackets.
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[19]), fields[0] not in ("Z", "X")


def process(pid: int) -> Process | None:
    """The running process with this number, or None."""
    stat = _stat(pid)
    return Process(pid, stat[0]) if stat is not None and stat[1] else None


def _all() -> Iterator[Process]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and (found := process(int(entry.name))) is not None:
            yield found


def mark(data_dir: Path, what: str) -> str:
    """The mark of the processes of one run of a data directory."""
    return f"{mark_of(data_dir)}#{what}"


def mark_of(data_dir: Path) -> str:
    """What the marks of all runs of a data directory begin with."""
    return quote(str(data_dir))


def of_data_dir(data_dir: Path) -> list[Process]:
    """Every other process that carries a mark of ``data_dir``, whatever run it is from."""
    return marked(mark_of(data_dir))


def marked(prefix: str) -> list[Process]:
    """Every other process whose ``HAULIER_STACK`` was, at its start, ``prefix`` or ``prefix#...``."""
    return [found for found in _all() if _carries(found.pid, prefix)]


def _carries(pid: int, prefix: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    exact = f"{MARK}={prefix}".encode()
    return any(entry == exact or entry.startswith(exact + b"#") for entry in environment.split(b"\0"))


def servers_in(folder: Path) -> list[Process]:
    """Every store's process that works in ``folder``: the server and its children, but no shell that went there.

    Args:
        folder: Absolute, without symbolic links.
    """
    return [found for found in _all() if _works_in(found, folder) and _is_server(found.command_line)]


def _works_in(found: Process, folder: Path) -> bool:
    try:
        return (_PROC / str(found.pid) / "cwd").readlink() == folder
    except PermissionError:
        # Root in a container may not look at another user's process; everyone may read its arguments.
        return str(folder) in found.command_line
    except OSError:
        return False


def _is_server(command_line: list[str]) -> bool:
    if not command_line:
        return False
    # A backend's title is "postgres: who what"; nanio is a module that Python runs.
    program = Path(command_line[0].split(":")[0].split(" ")[0]).name
    return program in _SERVERS or "nanio" in command_line


def end(processes: Iterable[Process], *, by: signal.Signals = signal.SIGTERM, grace_s: float) -> None:
    """Signal each process, wait for all of them, and kill what is left after ``grace_s``."""
    remaining = list(processes)
    for one in remaining:
        one.send(by)
    if not _gone(remaining, within_s=grace_s):
        for one in remaining:
            one.send(signal.SIGKILL)
        _gone(remaining, within_s=5.0)


def end_all(find: Callable[[], list[Process]], *, by: signal.Signals = signal.SIGTERM, grace_s: float) -> int:
    """End what ``find`` finds until it finds nothing twice; how many were ended.

    Twice, because a process may start another between being found and being killed.
    """
    ended = 0
    empty = 0
    while empty < 2:
        found = find()
        ended += len(found)
        empty = 0 if found else empty + 1
        end(found, by=by, grace_s=grace_s)
        if not found:
            time.sleep(0.02)
    return ended


def _gone(processes: list[Process], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(one.is_alive() for one in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
