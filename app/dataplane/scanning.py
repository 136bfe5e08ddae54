"""A file looked at for viruses by clamd, before anything is read of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from app.dataplane.origins import Origin
from app.domain.errors import JobError, PermanentError, TransientError
from app.domain.ports import ObjectInfo
from config.settings import Settings

_PIECE_BYTES: Final = 256 * 1024
_TIMEOUT_S: Final = 120.0
_ANSWER_BYTES: Final = 4_096


def scan(settings: Settings, origin: Origin, info: ObjectInfo, go_on: Callable[[], None]) -> None:
    """Have the stored bytes of a file looked at.

    Args:
        go_on: Called between pieces; raises when there is to be an end.
    Raises:
        PermanentError: ``source.infected``, with what was found.
        TransientError: clamd is away or cannot say: without its word nothing is read.
        JobError: ``source.scan_refused``: the file is larger than clamd takes; ``source.scanner_missing``.
    """
    where = settings.clamd
    if where is None:
        raise JobError("no scanner is configured (HAULIER_CLAMD)", code="source.scanner_missing")
    try:
        answer = _asked(origin, info, where, go_on)
    except OSError as error:
        raise TransientError(f"clamd does not answer: {error}", code="source.scanner_away") from error
    if answer.endswith(" FOUND"):
        name = answer.removeprefix("stream: ").removesuffix(" FOUND")
        raise PermanentError(f"the file is infected: {name}", code="source.infected", data={"found": name})
    if "size limit exceeded" in answer:
        raise JobError(f"clamd does not take the file: {answer}", code="source.scan_refused")
    if answer != "stream: OK":
        raise TransientError(f"clamd cannot say: {answer!r:.200}", code="source.scanner_away")


def _asked(origin: Origin, info: ObjectInfo, where: str, go_on: Callable[[], None]) -> str:
    with closing(origin.open(info, 0)) as source, closing(_connected(where)) as clamd:
        clamd.sendall(b"zINSTREAM\0")
        try:
            while piece := source.read(_PIECE_BYTES):
                clamd.sendall(len(piece).to_bytes(4, "big") + piece)
                go_on()
            clamd.sendall(bytes(4))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has said why it takes no more
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < _ANSWER_BYTES and (more := clamd.recv(_ANSWER_BYTES)):
            answer += more
    return answer.rstrip(b"\0\n").decode("utf-8", "replace")


def _connected(where: str) -> socket.socket:
    """A connection to ``unix:///path`` or ``tcp://host:port``."""
    parts = urlsplit(where)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(parts.path)
        except OSError:
            connection.close()
            raise
        return connection
    return socket.create_connection((parts.hostname, parts.port), timeout=_TIMEOUT_S)
