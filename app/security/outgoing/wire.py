"""``requests`` tied down: one session a hop, whose every connection is dialled by us and whose redirects are ours."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from requests import PreparedRequest, Request, Response
from requests.adapters import HTTPAdapter
from requests_hardened import Config, HTTPSession
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

Dial = Callable[[], socket.socket]

_OUR_HEADERS: Final = {"User-Agent": "Haulier", "Accept": "*/*"}
# Asked for last and always: other codings could not be decoded with a limit.
_CODING: Final = {"Accept-Encoding": "gzip"}


class PinnedSession(HTTPSession):  # type: ignore[misc]  # the library has no types
    """Reaches what ``dial`` connects to and nothing else; the URL's name stays in ``Host`` and in TLS.

    Neither proxies nor credentials of the environment are used, no cookie outlives the session, certificates are
    verified: those of certifi's authorities, or of ``ca_file``'s alone.
    """

    def __init__(self, dial: Dial, ca_file: Path | None = None) -> None:
        config = Config(
            ip_filter_enable=False,  # it resolves by itself and takes the first address; ours are checked before
            ip_filter_allow_loopback_ips=False,
            never_redirect=True,
            default_timeout=None,
        )
        super().__init__(config)
        self.trust_env = False
        self.verify = True if ca_file is None else str(ca_file)
        self.headers.clear()
        self.headers.update(_OUR_HEADERS)
        for prefix in ("http://", "https://"):
            self.mount(prefix, _PinnedAdapter(dial))

    def get_redirect_target(self, resp: Response) -> str | None:  # noqa: ARG002 - the name is requests'
        """None ever: to prepare the next request, ``requests`` would read the whole body of a redirect, unbounded."""
        return None

    def begin(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, *, timeout_s: float
    ) -> Response:
        """Send a request and read the head of its answer; the body is left on the wire."""
        request: PreparedRequest = self.prepare_request(Request(method, url, headers={**headers, **_CODING}, data=body))
        response: Response = self.send(request, stream=True, timeout=timeout_s)
        return response


class _PinnedAdapter(HTTPAdapter):
    """Gives urllib3 connections that do not resolve names."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        dial = self._dial

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return dial()

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return dial()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
