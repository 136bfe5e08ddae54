"""A proxy in front of S3 that misbehaves on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultyS3:
    """Passes requests on, but for those that ``fault(method, path)`` answers with a fault.

    Faults are ``"500"``, ``"503"``, ``"hang"`` and ``"truncate"``; ``None`` is none. ``requests`` lists what came, as
    ``(method, path)``.
    """

    def __init__(self, endpoint: str) -> None:
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(urlsplit(endpoint).netloc))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(proxy, upstream: str) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                fault = proxy.fault(self.command, self.path)
                if fault == "hang":
                    proxy._released.wait(60)
                    self.close_connection = True
                elif fault in ("500", "503"):
                    self._answer(int(fault), {"Content-Type": "application/xml"}, _refusal(fault))
                else:
                    self._forward(body, truncate=fault == "truncate")

            def _forward(self, body: bytes, *, truncate: bool) -> None:
                connection = HTTPConnection(upstream)
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() != "connection":
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                data = answer.read()
                headers = dict(answer.getheaders())
                connection.close()
                if truncate:
                    data = data[: len(data) // 2]
                    self.close_connection = True
                self._answer(answer.status, headers, data)

            def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                headers = {name.title(): value for name, value in headers.items()}
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    if name not in ("Transfer-Encoding", "Connection"):
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - names that http.server calls

        return Handler


def _refusal(status: str) -> bytes:
    code = "SlowDown" if status == "503" else "InternalError"
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>fault</Message></Error>'.encode()
