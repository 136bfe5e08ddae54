"""Free TCP ports on the loopback address.

Between choosing a port and listening on it some seconds go by. So a chosen port is also claimed, under a name that only
Haulier's processes look at, until the process that chose it ends: of two copies that start together each gets its own.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterable
from typing import Final

HOST: Final = "127.0.0.1"

# Below the range from which kernels take the ports of outgoing connections, so that none of those gets in between.
_FREE_FOR_ALL: Final = range(20_000, 32_000)

_lock = threading.Lock()
_claims: dict[int, int] = {}


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: the remains of closed connections do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def claim(port: int) -> bool:
    """Claim ``port`` for this process; False when it is taken or another process has claimed it."""
    with _lock:
        if port in _claims:
            return False
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # An abstract address: no file, gone with its process.
            name.bind(f"\0haulier-port-{port}")
        except OSError:
            name.close()
            return False
        if not is_free(port):
            name.close()
            return False
        # A bare descriptor: a claim may last as long as its process, and nobody need close it.
        _claims[port] = name.detach()
        return True


def release(ports: Iterable[int]) -> None:
    """Give up claims; ports that were not claimed here are ignored."""
    with _lock:
        for port in ports:
            descriptor = _claims.pop(port, None)
            if descriptor is not None:
                os.close(descriptor)


def free_port() -> int:
    """Any free port, claimed.

    Raises:
        OSError: None of a thousand tried was free.
    """
    for _ in range(1000):
        port = random.choice(_FREE_FOR_ALL)  # noqa: S311 - not a secret
        if claim(port):
            return port
    raise OSError(f"no free port between {_FREE_FOR_ALL.start} and {_FREE_FOR_ALL.stop} on {HOST}")


def block(first: int, count: int) -> list[int]:
    """``count`` claimed ports: ``first`` and those after it where they are free, any in place of the others."""
    return [port if port <= 65_535 and claim(port) else free_port() for port in range(first, first + count)]
