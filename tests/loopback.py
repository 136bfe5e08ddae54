"""HTTP servers on loopback that answer as a test likes."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many of these tests are about."""


class Loopback:
    """A server on 127.0.0.1 whose answers ``answer`` writes; ``seen`` lists the requests in order."""

    def __init__(
        self, answer: Callable[[BaseHTTPRequestHandler], object], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._answer = answer
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.port: int = self._server.server_address[1]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, path: str = "/", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(loopback) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                loopback.seen.append(Seen(self.command, self.path, headers, body))
                loopback._answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _any  # noqa: N815 - names that http.server calls

        return Handler


@contextmanager
def servers() -> Iterator[Callable[..., Loopback]]:
    """Starts servers; all end with the block."""
    started: list[Loopback] = []

    def start(answer: Callable[[BaseHTTPRequestHandler], object], **options: Any) -> Loopback:
        started.append(Loopback(answer, **options))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            server.close()


def answering(body: bytes = b"", status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that is always the same; ``content_type="a/b"`` gives the header ``Content-Type``."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-").title(), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def endless(
    piece: bytes = b"x", every_s: float = 0.0, *, head: bytes = b""
) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that never ends: ``head``, then ``piece`` after ``piece`` until the client hangs up."""
    pause = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head or b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while not pause.wait(every_s):
            handler.wfile.write(piece)

    return answer
