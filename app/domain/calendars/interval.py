"""The rule "every so often", counted from the Unix epoch and not from when the schedule was made (document 003)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.domain.calendars.faults import Faults, comment, members
from app.domain.durations import duration_s, duration_text, duration_words

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Interval:
    """Fires at ``offset`` behind every multiple of ``every`` since 1970-01-01T00:00Z, whatever the zone.

    Args:
        every: At least a second, whole milliseconds.
        offset: Shorter than ``every``, not negative.
        comment: For people.
    """

    every: timedelta
    offset: timedelta = timedelta()
    comment: str = ""

    @classmethod
    def parse(cls, body: object, at: str) -> Interval:
        """The rule out of ``{"every": "7d", "offset": "1h", "comment": ""}`` or out of the duration alone.

        Raises:
            InvalidRequestError: One problem per fault, with pointers below ``at``.
        """
        faults = Faults()
        given = members(body, at, ("every", "offset", "comment"), faults, main="every")
        every_at = f"{at}/every" if given is body else at
        every = faults.reading(lambda: _duration(given.get("every"), every_at))
        offset = faults.reading(lambda: _duration(given.get("offset") or 0, f"{at}/offset"))
        if every is not None and every < SHORTEST:
            faults.add(every_at, f"expected an interval of at least 1 second, got {given.get('every')!r}")
        elif every is not None and offset is not None and offset >= every:
            faults.add(f"{at}/offset", f"expected an offset shorter than the interval, got {given.get('offset')!r}")
        said = comment(given.get("comment"), f"{at}/comment", faults)
        return cls(faults.settled(every), faults.settled(offset), said)

    def as_json(self) -> dict[str, Any]:
        """The inverse of ``parse``; durations as texts."""
        body = {"every": duration_text(self.every.total_seconds())}
        if self.offset:
            body["offset"] = duration_text(self.offset.total_seconds())
        return body | ({"comment": self.comment} if self.comment else {})

    def next_after(self, after: datetime, zone: ZoneInfo) -> datetime:  # noqa: ARG002 - the same in every zone
        """The first fire (UTC) strictly after ``after``."""
        count = (after - _EPOCH - self.offset) // self.every + 1
        return _EPOCH + self.offset + count * self.every

    def words(self) -> str:
        """The rule in English."""
        said = f"every {duration_words(self.every.total_seconds())}"
        if said.startswith("every 1 ") and said.count(" ") == 2:
            said = f"every {said.removeprefix('every 1 ')}"
        if self.offset:
            said += f", {duration_words(self.offset.total_seconds())} later than counted from 1970"
        return said


def _duration(value: object, at: str) -> timedelta:
    return timedelta(milliseconds=round(duration_s(value, at) * 1000))
