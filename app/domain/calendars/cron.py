"""The rule as a line of cron: five fields, six with seconds in front, or a name such as ``@daily``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.domain.calendars import fields, phrases, wall_clock
from app.domain.calendars.faults import Faults, comment, members, shown
from app.domain.calendars.pattern import Pattern

_ORDER: Final = (fields.SECOND, fields.MINUTE, fields.HOUR, fields.DAY_OF_MONTH, fields.MONTH, fields.DAY_OF_WEEK)
_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Cron:
    """Fires when a clock in the schedule's zone matches a line of cron, by the rules of Debian's cron.

    Args:
        expression: As it was given.
        pattern: What it means.
        comment: For people.
    """

    expression: str
    pattern: Pattern
    comment: str = ""

    @classmethod
    def parse(cls, body: object, at: str) -> Cron:
        """The rule out of ``{"expression": "0 2 * * *", "comment": ""}`` or out of the expression alone.

        Raises:
            InvalidRequestError: One problem per fault, with pointers below ``at``.
        """
        faults = Faults()
        given = members(body, at, ("expression", "comment"), faults, main="expression")
        value_at = f"{at}/expression" if given is body else at
        expression = given.get("expression")
        pattern = _pattern(expression, value_at, faults)
        said = comment(given.get("comment"), f"{at}/comment", faults)
        if pattern is not None and pattern.never:
            faults.add(
                value_at, f"expected a date that comes up in some year, got {shown(expression)}, which never does"
            )
        return cls(str(expression), faults.settled(pattern), said)

    def as_json(self) -> str | dict[str, Any]:
        """The inverse of ``parse``."""
        return {"expression": self.expression, "comment": self.comment} if self.comment else self.expression

    def next_after(self, after: datetime, zone: ZoneInfo) -> datetime | None:
        """The first fire (UTC) strictly after ``after``; ``None`` for never."""
        return wall_clock.next_instant(self.pattern, zone, after)

    def words(self) -> str:
        """The rule in English."""
        return phrases.words(self.pattern)


def _pattern(expression: object, at: str, faults: Faults) -> Pattern | None:
    if not isinstance(expression, str) or len(expression) > _LONGEST:
        faults.add(at, f"expected a cron expression of at most {_LONGEST} characters, got {shown(expression)}")
        return None
    parts = _NAMED.get(expression.strip().lower(), expression).split()
    if len(parts) not in (5, 6):
        known = ", ".join(_NAMED)
        faults.add(at, f"expected 5 fields, 6 with seconds in front, or one of {known}, got {len(parts)} fields")
        return None
    parts = ["0", *parts] if len(parts) == 5 else parts
    read = []
    for field, part in zip(_ORDER, parts, strict=True):
        try:
            read.append(fields.read_text(field, part))
        except fields.WrongValueError as error:
            faults.add(at, str(error))
    if len(read) < len(_ORDER):
        return None
    second, minute, hour, day_of_month, month, day_of_week = read
    return Pattern(
        year=fields.every(fields.YEAR),
        month=month,
        day_of_month=day_of_month,
        day_of_week=day_of_week,
        hour=hour,
        minute=minute,
        second=second,
        either_day=not (day_of_month.star or day_of_week.star),
    )
