"""The rule as a calendar: an object that names years, months, days and times (document 003)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from app.domain.calendars import fields, phrases, wall_clock
from app.domain.calendars.faults import Faults, comment, members, shown
from app.domain.calendars.fields import Field, Span, Values, WrongValueError
from app.domain.calendars.pattern import Pattern


class _Member(NamedTuple):
    """One member of a calendar: its name here, its field, and what an absent one means."""

    name: str
    field: Field
    absent: object


# In the order of Pattern's fields.
_MEMBERS: Final = (
    _Member("year", fields.YEAR, "*"),
    _Member("month", fields.MONTH, "*"),
    _Member("day_of_month", fields.DAY_OF_MONTH, "*"),
    _Member("day_of_week", fields.DAY_OF_WEEK, "*"),
    _Member("hour", fields.HOUR, 0),
    _Member("minute", fields.MINUTE, 0),
    _Member("second", fields.SECOND, 0),
)
_KNOWN: Final = (*(member.field.name for member in _MEMBERS), "comment", "day_of_month", "day_of_week")
_MOST_PARTS: Final = 100


@dataclass(frozen=True, slots=True)
class Calendar:
    """Fires when a clock in the schedule's zone matches every field.

    Args:
        pattern: The fields. Absent ones: year, month and days allow all, hour, minute and second only 0.
        comment: For people.
    """

    pattern: Pattern
    comment: str = ""

    @classmethod
    def parse(cls, body: object, at: str) -> Calendar:
        """The rule out of an object like ``{"dayOfWeek": {"start": "MONDAY", "end": "FRIDAY"}, "hour": "9-17"}``.

        A field is a number, a name, ``*``, a text in cron's grammar, ``{"start", "end", "step"}`` or a list of these.

        Raises:
            InvalidRequestError: One problem per fault, with pointers below ``at``.
        """
        faults = Faults()
        given = members(body, at, _KNOWN, faults)
        read = [_read(given, member, at, faults) for member in _MEMBERS]
        said = comment(given.get("comment"), f"{at}/comment", faults)
        faults.raise_if_any()
        pattern = Pattern(*read)
        if pattern.never:
            faults.add(
                f"{at}/dayOfMonth", "expected a day that comes up in the months and years, got one that never does"
            )
        faults.raise_if_any()
        return cls(pattern, said)

    def as_json(self) -> dict[str, Any]:
        """The inverse of ``parse``: every field, the names of document 003."""
        body = {member.field.name: _json(member.field, getattr(self.pattern, member.name)) for member in _MEMBERS}
        return body | ({"comment": self.comment} if self.comment else {})

    def next_after(self, after: datetime, zone: ZoneInfo) -> datetime | None:
        """The first fire (UTC) strictly after ``after``; ``None`` for never."""
        return wall_clock.next_instant(self.pattern, zone, after)

    def words(self) -> str:
        """The rule in English."""
        return phrases.words(self.pattern)


def _read(given: Mapping[str, Any], member: _Member, at: str, faults: Faults) -> Values:
    field = member.field
    name = member.name if member.name in given else field.name
    if name != field.name and field.name in given:
        faults.add(f"{at}/{name}", f"expected {field.name} or {name}, got both")
    value = given.get(name)
    parts = value if isinstance(value, list) else [member.absent if value is None else value]
    if not 1 <= len(parts) <= _MOST_PARTS:
        faults.add(f"{at}/{name}", f"expected 1 to {_MOST_PARTS} values, got {len(parts)}")
        return fields.every(field)
    read = []
    for position, part in enumerate(parts):
        here = f"{at}/{name}/{position}" if isinstance(value, list) else f"{at}/{name}"
        try:
            read.append(_part(field, part, here, faults))
        except WrongValueError as error:
            faults.add(here, str(error))
    star = any(part.star for part in read)
    return fields.values(field, (span for part in read for span in part.spans), star=star)


def _part(field: Field, part: object, at: str, faults: Faults) -> Values:
    if isinstance(part, str):
        return fields.read_text(field, part.strip())
    if not isinstance(part, dict):
        number = _number(field, part)
        return fields.values(field, (Span(number, number),))
    given = members(part, at, ("start", "end", "step"), faults)
    step = given.get("step", 1)
    if isinstance(step, bool) or not isinstance(step, int):
        raise WrongValueError(f"expected a whole number as step, got {shown(step)}")
    if given.get("start") is None and given.get("end") is None and "step" in given:
        fields.span(field, field.least, field.most, step)
        return fields.every(field, step)
    start = _number(field, given.get("start"))
    end = _number(field, given["end"]) if given.get("end") is not None else (field.most if step > 1 else start)
    return fields.values(field, (fields.span(field, start, end, step),))


def _number(field: Field, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise WrongValueError(f"expected {field.expected}, got {shown(value)}")
    if isinstance(value, int) and not field.least <= value <= field.most:
        raise WrongValueError(f"expected {field.expected}, got {shown(value)}")
    return field.number(str(value).strip())


def _json(field: Field, values: Values) -> Any:
    if values == fields.every(field):
        return "*"
    parts = [_span_json(field, span, star=values.star) for span in values.spans]
    return parts[0] if len(parts) == 1 else parts


def _span_json(field: Field, span: Span, *, star: bool) -> Any:
    if star and (span.start, span.end) == (field.least, field.most):
        return {"step": span.step} if span.step > 1 else "*"
    if span.start == span.end:
        return _name(field, span.start)
    # From Sunday to Sunday in names would be read as one day.
    by_name = span.end - span.start < 7 or field is not fields.DAY_OF_WEEK
    start, end = (_name(field, span.start), _name(field, span.end)) if by_name else (span.start, span.end)
    body: dict[str, Any] = {"start": start, "end": end}
    return body | ({"step": span.step} if span.step > 1 else {})


def _name(field: Field, number: int) -> int | str:
    if field is fields.DAY_OF_WEEK:
        return fields.WEEKDAYS[number % 7].upper()
    return "L" if number == fields.LAST_DAY else number
