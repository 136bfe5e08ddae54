"""Ends a stack's processes when the process that started them is gone, even by ``kill -9``.

``python -m app.runtime.reaper MARK FOLDER...``: reads standard input, a pipe whose other end only the starter holds,
until it closes. Then it kills every process that carries the mark, ends the stores that work in the folders, and, with
``--remove DIR``, deletes a throw-away data directory, unless the starter dismissed it in order.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from app.runtime import processes
from config import process

_ORDERLY: Final = b"dismissed"


def start(mark: str, folders: Iterable[Path], *, own_mark: str, remove: Iterable[Path] = ()) -> subprocess.Popen[bytes]:
    """Start a reaper; closing its ``stdin``, which our death does as well, makes it act.

    Args:
        mark: The value of ``HAULIER_STACK`` that the stack's processes carry.
        folders: The working directories of the stack's stores.
        own_mark: What the reaper itself carries, so that the next run of the data directory can end it.
        remove: Folders to delete at the end.
    """
    command = [sys.executable, "-P", "-m", "app.runtime.reaper", mark, *map(str, folders)]
    command += [f"--remove={folder}" for folder in remove]
    environment = {**process.environment(), processes.MARK: own_mark}
    # A session of its own: Ctrl-C in the terminal must not end it before the stack is down.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment)


def dismiss(reaper: subprocess.Popen[bytes]) -> None:
    """Let the reaper look once more, deleting nothing, and wait until it is done."""
    if reaper.stdin is not None:
        with suppress(BrokenPipeError):
            reaper.stdin.write(_ORDERLY)
            reaper.stdin.flush()
        reaper.stdin.close()
    try:
        reaper.wait(timeout=60)
    except subprocess.TimeoutExpired:
        reaper.kill()
        reaper.wait()


def reap(mark: str, folders: Sequence[Path]) -> None:
    """Kill what carries ``mark``; let the stores in ``folders`` write what they have, then end them."""
    processes.end_all(lambda: processes.marked(mark), by=signal.SIGKILL, grace_s=5.0)
    for folder in folders:
        # A postmaster takes SIGINT for "disconnect everyone and shut down", the others for "stop".
        processes.end_all(partial(processes.servers_in, folder), by=signal.SIGINT, grace_s=10.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Wait for the end of standard input, then clean up."""
    parser = argparse.ArgumentParser(prog="app.runtime.reaper")
    parser.add_argument("mark")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--remove", action="append", default=[], type=Path)
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orderly = sys.stdin.buffer.read() == _ORDERLY
    reap(given.mark, given.folders)
    if not orderly:
        for folder in given.remove:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
