"""What the payloads of a batch came to, as the lines of a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

from app.domain.jobs import Job
from app.persistence import results
from app.persistence.results import ResultLine
from tasks.context import RunContext

_LINES_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 4 * 2**20


def lines(job: RunContext, of: Job, *, after: int = -1) -> Iterator[ResultLine]:
    """The lines in the order of their places, from ``after`` (exclusive) on; read some at a time."""
    while page := _page(job, of, after):
        yield from page
        after = page[-1].number


def _page(job: RunContext, of: Job, after: int) -> list[ResultLine]:
    with job.sessions.begin() as session:
        return results.page(session, of, after=after, limit=_LINES_AT_ONCE, most_bytes=_BYTES_AT_ONCE)


class ResultsFile(io.RawIOBase):
    """The lines as a stream; ``rows`` counts those that were read."""

    def __init__(self, job: RunContext, of: Job) -> None:
        self.rows = 0
        self._job = job
        self._total = of.progress.parts_total
        self._lines = lines(job, of)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """At most a line; nothing at the end."""
        if not self._rest:
            self._rest = memoryview(self._next())
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    def _next(self) -> bytes:
        line = next(self._lines, None)
        if line is None:
            return b""
        self.rows += 1
        self._job.progress(self.rows, self._total)
        return line.text.encode() + b"\n"
