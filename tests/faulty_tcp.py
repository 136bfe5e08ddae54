"""A TCP proxy that falls silent, or cuts a connection between a request's effect and its answer."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit


class FaultyTcp:
    """Hands bytes to and fro between its callers and the server of ``url``.

    Attributes:
        url: ``url`` by way of the proxy.
        cut_after: Once a request that holds these bytes was answered, its connection is cut instead of answered.
        cuts: How often that happened.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, _, _ = parts.netloc.rpartition("@")
        place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=f"{user}@{place}" if user else place))
        self.cut_after: bytes | None = None
        self.cuts = 0
        self._silent: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Pass nothing more on any connection there is, nor close it; new ones work."""
        self._silent |= self._open

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open |= {caller, server}
                doomed = threading.Event()
                for pair in ((caller, server, True), (server, caller, False)):
                    threading.Thread(target=self._pass_on, args=(*pair, doomed), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if source in self._silent:
                    continue
                if asks and self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    doomed.set()
                elif not asks and doomed.is_set():
                    self.cuts += 1
                    break
                target.sendall(data)
        if source not in self._silent:
            _hang_up(source, target)


def _hang_up(*ends: Any) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
