"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from typing import Final

HOST: Final = "127.0.0.1"

# Below the range from which kernels take the ports of outgoing connections, so that none of those gets in between.
_FREE_FOR_ALL: Final = range(20_000, 32_000)


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


def free_port(*, avoid: Sequence[int] = ()) -> int:
    """Any free port that is not in ``avoid``.

    Raises:
        OSError: None of a thousand tried was free.
    """
    for _ in range(1000):
        port = random.choice(_FREE_FOR_ALL)  # noqa: S311 - not a secret
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free port between {_FREE_FOR_ALL.start} and {_FREE_FOR_ALL.stop} on {HOST}")


def block(first: int, count: int) -> list[int]:
    """``count`` ports: ``first`` and those after it where they are free, any free ones in place of the others."""
    taken: list[int] = []
    for port in range(first, first + count):
        taken.append(port if port <= 65_535 and is_free(port) else free_port(avoid=taken))
    return taken
