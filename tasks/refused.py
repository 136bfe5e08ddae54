"""The records that a job type refuses, on their way to the ledger."""

from __future__ import annotations

import base64
from typing import Final

from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.domain.texts import is_storable, storable
from app.persistence import ledger
from app.persistence.ledger import Entry
from tasks.counts import count_of

FLUSH_AT: Final = 500
_FLUSH_AT_CHARACTERS: Final = 1_000_000
_LONGEST_MESSAGE: Final = 4_000


class Refused:
    """Holds at most some hundred records of one run; not safe in threads.

    Args:
        raw_rows: Records of the job that are kept with their text; of later ones only the rest is.
    """

    def __init__(self, job: Job, *, raw_rows: int) -> None:
        self._job = job
        self._raw_rows = raw_rows
        self._waiting: list[Entry] = []
        self._characters = 0
        self.total = job.error_count

    def __bool__(self) -> bool:
        """Whether records wait to be written."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether it is time to write them."""
        return len(self._waiting) >= FLUSH_AT or self._characters >= _FLUSH_AT_CHARACTERS

    def add(
        self,
        number: int,
        raw: str | bytes | None,
        *,
        field: str | None,
        code: str,
        message: str,
        place: tuple[int, int],
    ) -> None:
        """Take a record; ValueError when its number is none, TypeError for what is no text."""
        number = count_of("the number of a record", number)
        for what, value, kind in (("code", code, str), ("message", message, str), ("field", field, str | None)):
            if not isinstance(value, kind):
                raise TypeError(f"the {what} of a refused record is a text, got {value!r:.100}")
        if self.total + len(self._waiting) >= self._raw_rows:
            raw = None
        kept, is_base64 = _as_text(raw)
        name = None if field is None else storable(field)
        said = storable(message)[:_LONGEST_MESSAGE]
        self._waiting.append(Entry(number, *place, kept, is_base64, name, storable(code), said))
        self._characters += len(kept or "") + len(said)

    def write(self, session: Session) -> int:
        """Store what waits; how many were not in the ledger yet. Call ``written`` when that is committed."""
        return ledger.keep(session, self._job.tenant, self._job.id, self._waiting) if self._waiting else 0

    def written(self, new: int) -> None:
        """Forget what was stored."""
        self.total += new
        self._waiting.clear()
        self._characters = 0


def _as_text(raw: str | bytes | None) -> tuple[str | None, bool]:
    """Text as it is, bytes as text where they are, and as base64 what Postgres could not hold."""
    if raw is None:
        return None, False
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    return (text, False) if is_storable(text) else (base64.b64encode(data).decode(), True)
