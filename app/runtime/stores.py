"""The three embedded stores of one data directory, started and stopped together."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from app.runtime import processes, reaper
from app.runtime.errors import RuntimeStateError, StoreStartError
from app.runtime.objects import Objects
from app.runtime.ports import free_port, is_free, release
from app.runtime.postgres import Postgres
from app.runtime.server import Server
from app.runtime.stack_secrets import StackSecrets, load_or_make
from app.runtime.valkey import Valkey

_PORT_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class StorePorts:
    """Where the stores listen."""

    s3: int
    redis: int
    postgres: int


def free_ports() -> StorePorts:
    """Three free ports, claimed for this process."""
    return StorePorts(s3=free_port(), redis=free_port(), postgres=free_port())


class Stores:
    """PostgreSQL, Valkey and S3 below one data directory; the secrets are made at the first start.

    The servers end when the process that started them ends, in whatever way.

    Args:
        data_dir: Made when missing. Only one ``Stores`` may use it at a time; the caller sees to that.
        ports: Where to listen; None means any free ports.
        postgres_binaries: A folder with ``initdb`` and ``postgres``; None means the bundled PostgreSQL 18.
        postgres_settings: Server settings by name, over the defaults.
        buckets: Buckets to make.
        mark: ``HAULIER_STACK`` of other processes that are to die with the starter.
        throw_away: Delete the data directory when the starter dies without ``stop`` or ``remove``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: StorePorts | None = None,
        postgres_binaries: Path | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        buckets: Sequence[str] = ("haulier",),
        mark: str | None = None,
        throw_away: bool = False,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._given_ports = ports
        self._postgres_binaries = postgres_binaries
        self._postgres_settings = postgres_settings
        self._buckets = buckets
        self._mark = mark or processes.mark(self.data_dir, "stores")
        self._throw_away = throw_away
        self._reaper: subprocess.Popen[bytes] | None = None

    @cached_property
    def secrets(self) -> StackSecrets:
        """What the stores were set up with; made when the data directory is new.

        Raises:
            RuntimeStateError: The directory holds data but its secrets are gone.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        file = self.data_dir / "secrets.json"
        if not file.exists() and (self.data_dir / "postgres").exists():
            raise RuntimeStateError(
                f"{self.data_dir} holds a database, but the passwords in secrets.json are gone",
                hint="Put secrets.json back, or choose another data directory.",
            )
        return load_or_make(file)

    @cached_property
    def _ports(self) -> StorePorts:
        return self._given_ports or free_ports()

    @cached_property
    def postgres(self) -> Postgres:
        """The database server."""
        return Postgres(
            self.data_dir / "postgres",
            self._log("postgres"),
            port=self._ports.postgres,
            password=self.secrets.postgres_password,
            instance=self.secrets.instance,
            binaries=self._postgres_binaries,
            settings=self._postgres_settings,
        )

    @cached_property
    def valkey(self) -> Valkey:
        """The Redis server."""
        return Valkey(
            self.data_dir / "valkey",
            self._log("valkey"),
            port=self._ports.redis,
            password=self.secrets.valkey_password,
        )

    @cached_property
    def objects(self) -> Objects:
        """The S3 server."""
        return Objects(
            self.data_dir / "objects",
            self._log("objects"),
            port=self._ports.s3,
            access_key_id=self.secrets.s3_access_key_id,
            secret_access_key=self.secrets.s3_secret_access_key,
            buckets=self._buckets,
        )

    @property
    def database_url(self) -> str:
        """Postgres URL with the password."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """Redis URL with the password."""
        return self.valkey.url

    @property
    def s3_endpoint(self) -> str:
        """URL of the S3 server."""
        return self.objects.url

    @property
    def s3_access_key_id(self) -> str:
        """Of the one S3 user."""
        return self.secrets.s3_access_key_id

    @property
    def s3_secret_access_key(self) -> str:
        """Of the one S3 user."""
        return self.secrets.s3_secret_access_key

    def environment(self) -> dict[str, str]:
        """The variables that make a Haulier process use these stores."""
        return {
            "HAULIER_DATABASE_URL": self.database_url,
            "HAULIER_REDIS_URL": self.redis_url,
            "HAULIER_S3_ENDPOINT": self.s3_endpoint,
            "HAULIER_S3_ACCESS_KEY_ID": self.s3_access_key_id,
            "HAULIER_S3_SECRET_ACCESS_KEY": self.s3_secret_access_key,
            "HAULIER_S3_BUCKET": self._buckets[0],
            "HAULIER_SECRET_KEY": self.secrets.secret_key or "",
            "HAULIER_MASTER_KEY": self.secrets.master_key or "",
        }

    def start(self) -> None:
        """Start all three, the slowest first; on failure none is left running.

        Raises:
            StoreStartError: A server did not come up.
            RuntimeStateError: The data directory cannot be used.
        """
        try:
            self._watch()
            for server in (self.postgres, self.valkey, self.objects):
                _start_somewhere(server)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what runs, Postgres last; harmless when nothing does."""
        for name in ("objects", "valkey", "postgres"):
            if name in self.__dict__:
                server: Server = self.__dict__[name]
                server.stop()
        if self._reaper is not None:
            reaper.dismiss(self._reaper)
            self._reaper = None

    def remove(self) -> None:
        """Stop the stores, delete the data directory and give up the ports."""
        self.stop()
        if "_ports" in self.__dict__:
            release((self._ports.s3, self._ports.redis, self._ports.postgres))
        if (self.data_dir / "secrets.json").exists():
            self.postgres.remove()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def folders(self) -> list[Path]:
        """Where the three servers work, in the order in which they are to end."""
        return [self.objects.folder, self.valkey.folder, self.postgres.folder]

    def _watch(self) -> None:
        if self._reaper is None:
            outside = [] if self.postgres.folder.is_relative_to(self.data_dir) else [self.postgres.folder.parent]
            remove = [self.data_dir, *outside] if self._throw_away else []
            own = processes.mark(self.data_dir, "reaper")
            # A reaper of a killed run may still be at work, and would not tell our stores from its own.
            processes.end(processes.marked(own), by=signal.SIGKILL, grace_s=5.0)
            self._reaper = reaper.start(self._mark, self.folders(), own_mark=own, remove=remove)

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def _start_somewhere(server: Postgres | Valkey | Objects) -> None:
    """Start ``server``; on another free port when somebody took its port since it was chosen."""
    for _ in range(_PORT_TRIES - 1):
        try:
            server.start()
        except StoreStartError:
            if is_free(server.port):
                raise
            server.port = free_port()
        else:
            return
    server.start()
