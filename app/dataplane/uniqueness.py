"""Which values a file has had before, in bounded memory: digests, and a file of them when they are many."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

_HELD: Final = 500_000
_DIGEST_BYTES: Final = 16
_AT_ONCE: Final = 10_000


class Seen:
    """Remembers values for as long as it lives.

    Args:
        held: Values that are kept in memory before they go to a file; the file is temporary and has no name.
    """

    def __init__(self, held: int = _HELD) -> None:
        self._most = held
        self._held: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._file: sqlite3.Connection | None = None

    def repeated(self, values: Sequence[bytes | None]) -> list[int]:
        """The places of values that were there before, here or in an earlier call; ``None`` is never repeated."""
        marks = [None if value is None else _mark(value) for value in values]
        known = self._held
        known |= self._kept([mark for mark in marks if mark is not None])
        found: list[int] = []
        fresh = self._fresh = set()
        for place, mark in enumerate(marks):
            if mark is None:
                continue
            if mark in known:
                found.append(place)
            else:
                known.add(mark)
                fresh.add(mark)
        if len(known) > self._most:
            self._put_away()
        return found

    def forget(self) -> None:
        """Forget what the last call was the first to bring."""
        self._held -= self._fresh
        if self._file is not None:
            self._file.executemany("DELETE FROM seen WHERE mark = ?", ((mark,) for mark in self._fresh))
        self.keep()

    def keep(self) -> None:
        """What the last call brought is not to be forgotten."""
        self._fresh = set()

    def _kept(self, marks: Sequence[bytes]) -> set[bytes]:
        """Those of the marks that the file has."""
        if self._file is None:
            return set()
        found: set[bytes] = set()
        for begin in range(0, len(marks), _AT_ONCE):
            some = marks[begin : begin + _AT_ONCE]
            places = ", ".join("?" * len(some))
            found.update(row[0] for row in self._file.execute(f"SELECT mark FROM seen WHERE mark IN ({places})", some))
        return found

    def _put_away(self) -> None:
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None)
            weakref.finalize(self, self._file.close)
            self._file.execute("PRAGMA journal_mode = OFF")
            self._file.execute("CREATE TABLE seen (mark BLOB PRIMARY KEY) WITHOUT ROWID")
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((mark,) for mark in sorted(self._held)))
        self._file.execute("COMMIT")
        self._held = set()


def _mark(value: bytes) -> bytes:
    """What a value is known by: itself when it is short, else a digest, which is longer than any of those."""
    return value if len(value) < _DIGEST_BYTES else blake2b(value, digest_size=_DIGEST_BYTES).digest()
