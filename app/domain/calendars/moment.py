"""Instants in requests, and the rule "at this instant, once"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.domain.calendars.faults import Faults, comment, members, shown
from app.domain.calendars.fields import FIRST_YEAR, LAST_YEAR
from app.domain.calendars.wall_clock import instant_of
from app.domain.errors import InvalidRequestError, Problem


@dataclass(frozen=True, slots=True)
class At:
    """Fires once, at ``instant`` (UTC)."""

    instant: datetime
    comment: str = ""

    @classmethod
    def parse(cls, body: object, at: str, zone: ZoneInfo) -> At:
        """The rule out of ``{"at": "2026-12-01T09:00:00Z", "comment": ""}`` or out of the time alone.

        Raises:
            InvalidRequestError: One problem per fault, with pointers below ``at``.
        """
        faults = Faults()
        given = members(body, at, ("at", "comment"), faults, main="at")
        value_at = f"{at}/at" if given is body else at
        instant = faults.reading(lambda: read_instant(given.get("at"), value_at, zone))
        said = comment(given.get("comment"), f"{at}/comment", faults)
        return cls(faults.settled(instant), said)

    def as_json(self) -> str | dict[str, Any]:
        """The inverse of ``parse``."""
        text = instant_text(self.instant)
        return {"at": text, "comment": self.comment} if self.comment else text

    def next_after(self, after: datetime, zone: ZoneInfo) -> datetime | None:  # noqa: ARG002 - an instant has no zone
        """The instant, while it lies strictly after ``after``."""
        return self.instant if self.instant > after else None

    def words(self) -> str:
        """The rule in English."""
        return f"once at {instant_text(self.instant)}"


def read_instant(value: object, at: str, zone: ZoneInfo) -> datetime:
    """The instant (UTC) of an ISO 8601 text; one without an offset is a clock's reading in ``zone``.

    Raises:
        InvalidRequestError: It is no such text, or its year is not 1970 to 2199.
    """
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
        if read is not None and FIRST_YEAR <= read.year <= LAST_YEAR:
            return read.astimezone(UTC) if read.tzinfo else instant_of(read, zone)
    except ValueError:
        pass
    detail = f"expected an ISO 8601 date and time of the years {FIRST_YEAR} to {LAST_YEAR}, got {shown(value)}"
    raise InvalidRequestError(
        f"the time cannot be used: {detail}", code="schedule.rules_invalid", problems=(Problem(at, detail),)
    )


def instant_text(instant: datetime) -> str:
    """ISO 8601 in UTC, with ``Z``."""
    return instant.isoformat().replace("+00:00", "Z")
