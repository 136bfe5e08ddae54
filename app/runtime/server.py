"""What every embedded server has in common: one process, one log, a start that waits for an answer."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.runtime import processes
from app.runtime.errors import RuntimeStateError, StoreStartError
from config import process

_LOG_LINES_SHOWN: Final = 15
_LOG_LIMIT_BYTES: Final = 20 * 1024 * 1024


class Server:
    """One server process that works in a folder of its own.

    Subclasses say how to prepare the folder, what to run and when it answers.

    Args:
        name: For messages.
        folder: Where it keeps its data; also its working directory, by which its leftovers are found.
        log_file: Its output is appended here.
        start_timeout_s: How long it may take until it answers.
    """

    name: str
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0

    def __init__(self, folder: Path, log_file: Path, *, start_timeout_s: float = 60.0) -> None:
        # As /proc shows it.
        self.folder = folder.resolve()
        self.log_file = log_file
        self.start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def pid(self) -> int:
        """The server's process.

        Raises:
            RuntimeStateError: It has not been started.
        """
        if self._process is None:
            raise RuntimeStateError(f"{self.name} has not been started")
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process started here is still there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            StoreStartError: It ended or stayed silent.
            RuntimeStateError: Its folder cannot be used.
        """
        if self.is_running():
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._rotate_log()
        self._log_offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.prepare()
        self.end_leftovers()
        self._process = self._spawn()
        try:
            self._wait_for_answer()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, giving it ``stop_grace_s`` to write what it holds; harmless when it is down."""
        self._stop(self.stop_signal)

    def kill(self) -> None:
        """``kill -9`` the server process, as a fault."""
        self._stop(signal.SIGKILL)

    def _stop(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            try:
                self._process.wait(timeout=self.stop_grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.end_leftovers()

    def end_leftovers(self) -> None:
        """End every other server that works in the folder: what a killed stack left behind."""
        processes.end_all(lambda: processes.servers_in(self.folder), by=self.stop_signal, grace_s=self.stop_grace_s)

    def prepare(self) -> None:
        """Make the folder ready; called before each start."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Program and arguments."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The environment of the server; ours without the stack's mark, since its folder identifies it."""
        return {name: value for name, value in process.environment().items() if name != processes.MARK}

    def account(self) -> tuple[int, int] | None:
        """User and group to run as; None is ours."""
        return None

    def answers(self) -> bool:
        """Whether the server answers, and is ours: it takes our password."""
        raise NotImplementedError

    def _spawn(self) -> subprocess.Popen[bytes]:
        user, group = self.account() or (None, None)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=dict(self.environment()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Out of the terminal's process group: Ctrl-C is for the supervisor, which stops the stores last.
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
            )

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while self._process is not None:
            code = self._process.poll()
            if code is not None:
                raise StoreStartError(f"{self.name} ended with code {code} while starting.\n{self.last_log_lines()}")
            if self.answers():
                return
            if time.monotonic() > deadline:
                raise StoreStartError(
                    f"{self.name} did not answer within {self.start_timeout_s:g} s.\n{self.last_log_lines()}"
                )
            time.sleep(0.03)

    def last_log_lines(self) -> str:
        """The end of what the server has logged since its last start, and where to read the rest."""
        lines: list[str] = []
        if self.log_file.exists():
            with self.log_file.open("rb") as log:
                log.seek(self._log_offset)
                lines = log.read().decode(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        shown = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        return f"Last lines of {self.log_file}:\n{shown}"

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_name(self.log_file.name + ".1"))
