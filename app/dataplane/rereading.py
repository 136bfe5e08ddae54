"""Records of an import's file read once more, by the byte ranges that the ledger has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from app.dataplane.formats import Format
from app.dataplane.loader import as_kept
from app.dataplane.plan import Plan
from app.dataplane.sources import READ_BYTES, ByteSource
from app.domain.errors import JobError, TransientError

MOST_BYTES: Final = 32 * 2**20
"""What is held of a file at once."""
_SKIPPED_BYTES: Final = 4 * 2**20
"""Over more than this a plain file is opened anew."""

Text = tuple[str, bool]
"""A record as the ledger would keep it, and whether in base64."""


class Rereader:
    """Reads records in the order of the file, from the very file that the import read.

    ``lost`` says why the file can no longer be had; from then on nothing is read.

    Args:
        opened: The file's bytes from a byte on.
        go_on: Called before each record; raises when there is to be an end.
    """

    def __init__(
        self, opened: Callable[[int], ByteSource], plan: Plan, *, go_on: Callable[[], None] = lambda: None
    ) -> None:
        self._opened = opened
        self._plan = plan
        self._go_on = go_on
        self._source: ByteSource | None = None
        self._at = 0
        self.lost: JobError | None = None

    def texts(self, places: Iterable[tuple[int, int, int]]) -> dict[int, Text]:
        """The texts of records by their line, as many as ``MOST_BYTES`` hold; none once the file is lost.

        Args:
            places: Line, first byte and end of each record, ascending.
        Raises:
            TransientError: Another attempt may do better.
        """
        found: dict[int, Text] = {}
        held = 0
        for line, begin, end in places:
            if self.lost or (found and held + end - begin > MOST_BYTES):
                break
            self._go_on()
            try:
                raw = self._read(begin, end)
            except TransientError:
                self.close()
                raise
            except JobError as error:
                self.lost = error
                break
            held += len(raw)
            found[line] = as_kept(self._alone(raw), self._plan.encoding)
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _alone(self, raw: bytes) -> bytes:
        """Without what parts an element of an array from the one before."""
        return raw.lstrip(b", \t\r\n") if self._plan.file_format is Format.JSON else raw

    def _read(self, begin: int, end: int) -> bytes:
        source = self._source_at(begin)
        while self._at < begin:
            self._take(source, min(READ_BYTES, begin - self._at))
        pieces = []
        while self._at < end:
            pieces.append(self._take(source, end - self._at))
        return b"".join(pieces)

    def _source_at(self, begin: int) -> ByteSource:
        """The file, at ``begin`` or before it."""
        far = not self._plan.is_packed and begin - self._at > _SKIPPED_BYTES
        if self._source is None or begin < self._at or far:
            self.close()
            self._source, self._at = self._opened(begin), begin
        return self._source

    def _take(self, source: ByteSource, size: int) -> bytes:
        data = source.read(size)
        if not data:
            raise JobError(f"the file ends at byte {self._at}", code="source.changed")
        self._at += len(data)
        return data
