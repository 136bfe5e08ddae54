"""An embedded S3 server from the ``nanio`` package: verifies signatures, keeps objects as files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.runtime.errors import StoreStartError
from app.runtime.ports import HOST
from app.runtime.server import Server


class Objects(Server):
    """nanio on the loopback address with one user.

    Args:
        folder: Buckets are folders below it.
        log_file: Its output.
        port: TCP port.
        access_key_id: Of the one user.
        secret_access_key: Of the one user.
        buckets: Made at the start when missing.
    """

    name = "nanio (S3)"
    # uvicorn waits for open connections to end by themselves; a browser's may stay open for ever.
    stop_grace_s = 3.0

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        *,
        port: int,
        access_key_id: str,
        secret_access_key: str,
        buckets: Sequence[str] = ("haulier",),
    ) -> None:
        super().__init__(folder, log_file)
        self.port = port
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self._buckets = tuple(buckets)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the server and make the buckets.

        Raises:
            StoreStartError: It did not come up or refuses a bucket.
        """
        super().start()
        client = self._client()
        try:
            present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in self._buckets:
                if bucket not in present:
                    client.create_bucket(Bucket=bucket)
        except (ClientError, BotoCoreError) as error:
            raise StoreStartError(f"{self.name} refused a bucket of {self._buckets}: {error}") from error
        finally:
            client.close()

    def prepare(self) -> None:
        """Remove what uploads that were cut off by a kill have left; nobody can see or finish those."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.end_leftovers()
        for leftover in self.folder.rglob(".tmp.*"):
            leftover.unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        """The server; its working directory stays out of the import path."""
        where = ["--data-dir", str(self.folder), "--host", HOST, "--port", str(self.port)]
        quiet = ["--no-access-log", "--log-level", "warning"]
        return [sys.executable, "-P", "-m", "nanio", "serve", *where, *quiet, "--gc-abandoned-uploads"]

    def environment(self) -> Mapping[str, str]:
        """Ours and the user's key, which a command line would show to everyone."""
        ours = {name: value for name, value in super().environment().items() if not name.startswith("NANIO_")}
        return {**ours, "NANIO_ACCESS_KEY": self.access_key_id, "NANIO_SECRET_KEY": self.secret_access_key}

    def answers(self) -> bool:
        """Whether it takes our key."""
        client = self._client()
        try:
            client.list_buckets()
        except (ClientError, BotoCoreError):
            return False
        finally:
            client.close()
        return True

    def _client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name="us-east-1",
            config=Config(
                retries={"max_attempts": 1}, connect_timeout=1, read_timeout=5, s3={"addressing_style": "path"}
            ),
        )
