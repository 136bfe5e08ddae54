"""The sockets of one call: dialled to checked addresses alone, and cut when the call's time is over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from time import monotonic
from typing import Final, TypeVar

from app.domain.errors import TransientError
from app.domain.job_types import JobContext
from app.security.outgoing.addresses import Address

T = TypeVar("T")

_GLANCE_S: Final = 0.1
_CONNECT_S: Final = 10.0


class Line:
    """One call's time and sockets.

    A limit on each read of a socket does not end a call whose bytes drip; so a thread watches the clock and the job
    and shuts the sockets down, which wakes whatever waits on them: a connect, a handshake, a header, a body.

    Args:
        timeout_s: From now to the last byte of the answer.
        job: Stops the call when it is asked to stop.
    """

    def __init__(self, timeout_s: float, job: JobContext | None) -> None:
        self._timeout_s = timeout_s
        self._until = monotonic() + timeout_s
        self._job = job
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.is_cut = False

    @property
    def left_s(self) -> float:
        """Seconds until the call's time is over, never quite none: sockets take 0 for another mode."""
        return max(0.001, self._until - monotonic())

    def check(self) -> None:
        """Raise what the job was asked to stop for, or that the time is over.

        Raises:
            TransientError: The call took longer than it may.
        """
        if self._job is not None and self._job.cancelled:
            self._job.check()
        if self._is_over():
            raise TransientError(f"the call took longer than its {self._timeout_s:g} s", code="http.timeout")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Hold the call to its time; its sockets are gone afterwards."""
        watcher = threading.Thread(target=self._watch, name="outgoing call", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()
            for held in self._sockets:
                held.close()

    def wait_for(self, work: Callable[[], T]) -> T:
        """What ``work`` gives; it goes on in a thread of its own, unheard, when the call is over before it."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="outgoing")
        try:
            future = pool.submit(work)
            while not wait([future], timeout=_GLANCE_S).done:
                self.check()
            return future.result()
        finally:
            pool.shutdown(wait=False)

    def dial(self, addresses: Sequence[Address], port: int) -> socket.socket:
        """A connection to the first of ``addresses`` that takes one.

        Raises:
            OSError: None did; the last one's reason.
        """
        refused: OSError = ConnectionError("there is no address to dial")
        for address in addresses:
            self.check()
            try:
                return self._connected(address, port)
            except OSError as error:
                refused = error
        raise refused

    def _connected(self, address: Address, port: int) -> socket.socket:
        dialled = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            dialled.settimeout(min(_CONNECT_S, self.left_s))
            with self._lock:
                # A second handle on the same connection: TLS and http.client take the first one over.
                self._sockets.append(dialled.dup())
            dialled.connect((str(address), port))
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            dialled.close()
            raise
        return dialled

    def _is_over(self) -> bool:
        return monotonic() >= self._until or (self._job is not None and self._job.cancelled)

    def _watch(self) -> None:
        nap_s = self.left_s if self._job is None else min(_GLANCE_S, self.left_s)
        while not self._ended.wait(nap_s):
            nap_s = min(_GLANCE_S, self.left_s)
            if self._is_over():
                self._cut()
                nap_s = _GLANCE_S  # again and again: a socket may be dialled in between

    def _cut(self) -> None:
        self.is_cut = True
        with self._lock:
            for held in self._sockets:
                try:
                    held.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # not connected yet, or gone
