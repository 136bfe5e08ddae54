"""The account Postgres runs as when we are root, and folders it can reach.

Postgres refuses to run as root. No mode of a folder that is not ours is ever changed: where the way to the data is
closed to the account, the data live in ``/var/lib/haulier`` instead.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.runtime.errors import RuntimeStateError
from config import process

NAME: Final = "haulier"
OUTSIDE: Final = Path("/var/lib/haulier")


@dataclass(frozen=True, slots=True)
class Account:
    """A system user."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for a server that refuses root; None when we are not root. Made when it is missing.

    Raises:
        RuntimeStateError: It is missing and cannot be made.
    """
    if os.geteuid() != 0:
        return None
    reason = ""
    # Another copy may hold the lock of the user database or be making the same user.
    for _ in range(20):
        found = _lookup()
        if found is not None:
            return found
        reason = _make()
        time.sleep(0.25 if reason else 0)
    raise RuntimeStateError(
        f"Postgres does not run as root, and the user {NAME!r} for it cannot be made: {reason}",
        hint=f"Make a system user called {NAME!r}, or run as an ordinary user.",
    )


def _lookup() -> Account | None:
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        raise RuntimeStateError(f"the user {NAME!r} is root itself; Postgres needs one that is not")
    return Account(entry.pw_uid, entry.pw_gid)


def _make() -> str:
    """Make the user; what went wrong, or an empty text."""
    searched = os.pathsep.join([process.environment().get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    for program, arguments in (
        (
            "useradd",
            ["--system", "--user-group", "--no-create-home", "--home-dir", str(OUTSIDE), "--shell", "/bin/false"],
        ),
        ("adduser", ["-S", "-D", "-H", "-h", str(OUTSIDE), "-s", "/bin/false"]),
    ):
        if (found := shutil.which(program, path=searched)) is not None:
            done = subprocess.run([found, *arguments, NAME], capture_output=True, text=True, check=False)
            return "" if done.returncode == 0 else f"{program}: {done.stderr.strip()}"
    return "neither useradd nor adduser is there"


def can_pass(account: Account, folder: Path) -> bool:
    """Whether ``account`` can go through ``folder`` and every folder above it, asked of the kernel by trying."""
    return _allowed(account, "-x", folder)


def can_run(account: Account, program: Path) -> bool:
    """Whether ``account`` can execute ``program``."""
    return _allowed(account, "-x", program)


def _allowed(account: Account, test: str, path: Path) -> bool:
    probe = subprocess.run(
        ["/bin/sh", "-c", 'test "$1" "$2"', "sh", test, str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return probe.returncode == 0


def make_open(folder: Path) -> None:
    """Make a folder of ours that everyone may enter; one that exists stays as it is."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Whatever the umask says: the server's user has to pass.
        folder.chmod(0o755)
