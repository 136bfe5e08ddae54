"""Places for requests that stay: waits and streams share them, so that those who do not stay find a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import UnavailableError


class Places:
    """So many requests of a process may stay at once."""

    def __init__(self, count: int, *, hint: str = "Poll without 'wait', or come back after Retry-After.") -> None:
        self._free = threading.BoundedSemaphore(count)
        self._hint = hint

    def take(self) -> None:
        """Take a place, to be given back by ``leave``.

        Raises:
            UnavailableError: Every place is taken; ``data['retry_after_s']`` says when to come back.
        """
        if not self.try_take():
            raise UnavailableError(
                "every waiting place is taken",
                code="service.too_many_waits",
                hint=self._hint,
                data={"retry_after_s": 1},
            )

    def try_take(self) -> bool:
        """Take a place if there is one; whether there was."""
        return self._free.acquire(blocking=False)

    def leave(self) -> None:
        """Give a place back."""
        self._free.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place while the context lasts."""
        self.take()
        try:
            yield
        finally:
            self.leave()
