"""Buckets of others: S3 as ever, through connections that reach public addresses alone."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from pydantic import SecretStr
from urllib3.exceptions import NewConnectionError
from urllib3.util.connection import create_connection

from app.domain.errors import HaulierError
from app.domain.sinks import Credentials
from app.security.outgoing.addresses import Address
from app.security.outgoing.guard import Outgoing
from app.storage.s3 import S3Store
from config.settings import Settings

_ATTEMPTS = 3


class SinkStore(S3Store):
    """A tenant's own S3.

    Args:
        settings: Which networks may be called.
        endpoint: ``None`` for AWS.
    Raises:
        PermanentError: ``ERR_URL_FORBIDDEN``: the endpoint is not one that may be called.
        TransientError: Its name has no address now.
    """

    def __init__(self, settings: Settings, endpoint: str | None, region: str, credentials: Credentials) -> None:
        theirs = {
            "s3_endpoint": endpoint,
            "s3_public_endpoint": None,
            "s3_region": region,
            "s3_access_key_id": credentials.access_key_id,
            "s3_secret_access_key": SecretStr(credentials.secret_access_key),
            "s3_server_side_encryption": None,
            "s3_kms_key_id": None,
        }
        super().__init__(settings.model_copy(update=theirs), attempts=_ATTEMPTS)
        self._outgoing = Outgoing.from_settings(settings)
        self._config = self._config.merge(Config(proxies={}))
        if endpoint is not None:
            self._outgoing.addresses_of(endpoint)

    def _new_client(self, endpoint: str | None) -> Any:
        client = super()._new_client(endpoint)
        # The address is judged where it is dialled: a name may lead elsewhere the next time.
        client._endpoint.http_session = _Guarded(self._outgoing, self._config)
        return client


class _Guarded(URLLib3Session):  # type: ignore[misc]  # botocore has no types
    def __init__(self, outgoing: Outgoing, config: Any) -> None:
        super().__init__(
            timeout=(config.connect_timeout, config.read_timeout), max_pool_connections=config.max_pool_connections
        )

        class Plain(_Dialled, AWSHTTPConnection):  # type: ignore[misc]
            guard = outgoing

        class Secure(_Dialled, AWSHTTPSConnection):  # type: ignore[misc]
            guard = outgoing

        self._manager.pool_classes_by_scheme = {
            "http": type("PlainPool", (AWSHTTPConnectionPool,), {"ConnectionCls": Plain}),
            "https": type("SecurePool", (AWSHTTPSConnectionPool,), {"ConnectionCls": Secure}),
        }


class _Dialled:
    """A connection to one of the addresses that may be reached; the name stays in ``Host`` and in TLS."""

    guard: Outgoing
    host: str
    port: int
    scheme: str
    timeout: Any
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        try:
            addresses = self._addresses()
            return create_connection((str(addresses[0]), self.port), self.timeout, socket_options=self.socket_options)
        except (HaulierError, OSError) as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]  # it is one

    def _addresses(self) -> Sequence[Address]:
        scheme = "https" if isinstance(self, AWSHTTPSConnection) else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.guard.addresses_of(f"{scheme}://{host}:{self.port}")
