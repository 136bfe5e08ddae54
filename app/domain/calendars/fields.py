"""The fields of a date and a time, and the values a rule allows for one: numbers, names, ranges, steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199
"""Nothing fires later: it bounds every search, and a rule that may never fire is known by it."""
LAST_DAY: Final = -1
"""In ``dayOfMonth``: the month's last day, written ``L``."""
MOST_STEP: Final = 9999
_NUMBER: Final = re.compile(r"\d{1,4}", re.ASCII)

# fmt: off
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)
# fmt: on
WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


class WrongValueError(ValueError):
    """A field's value cannot be used; the message says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Args:
        name: As document 003 writes it.
        least: Its smallest number.
        most: Its largest; 7 for the day of the week, where 0 and 7 are Sunday.
        names: Upper-case words that stand for numbers.
    """

    name: str
    least: int
    most: int
    names: Mapping[str, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """The number that ``text``, a number or a name, stands for; WrongValueError when none."""
        named = self.names.get(text.upper())
        if named is not None:
            return named
        if not _NUMBER.fullmatch(text) or not self.least <= int(text) <= self.most:
            raise WrongValueError(f"expected {self.expected}, got {text[:40]!r}")
        return int(text)

    @property
    def expected(self) -> str:
        """What a value must be, for messages."""
        words = f" or a name like {next(iter(self.names))}" if self.names else ""
        return f"{self.name} from {self.least} to {self.most}{words}"


def _named(words: tuple[str, ...], first: int) -> dict[str, int]:
    """Names and their first three letters, in upper case, counted from ``first``."""
    full = {word.upper(): number for number, word in enumerate(words, first)}
    return full | {word[:3]: number for word, number in full.items()}


SECOND: Final = Field("second", 0, 59)
MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY_OF_MONTH: Final = Field("dayOfMonth", 1, 31, {"L": LAST_DAY})
MONTH: Final = Field("month", 1, 12, _named(MONTHS, 1))
DAY_OF_WEEK: Final = Field("dayOfWeek", 0, 7, _named(WEEKDAYS, 0))
YEAR: Final = Field("year", FIRST_YEAR, LAST_YEAR)


@dataclass(frozen=True, slots=True)
class Span:
    """``start`` to ``end``, both included, in steps."""

    start: int
    end: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Values:
    """What a rule allows for a field.

    Args:
        spans: As they were written.
        star: Whether it was written with a leading ``*``: it matters when clocks change (docs/schedules.md).
        numbers: The allowed numbers in order; Sunday is 0.
    """

    spans: tuple[Span, ...]
    star: bool
    numbers: tuple[int, ...]


def values(field: Field, spans: Iterable[Span], *, star: bool = False) -> Values:
    """The values that ``spans`` allow for ``field``."""
    # A lone 7 is the same day as 0 and kept as that, so that it is read back as what it was.
    listed = tuple(Span(0, 0) if field is DAY_OF_WEEK and span.start == 7 else span for span in spans)
    numbers = {number for span in listed for number in range(span.start, span.end + 1, span.step)}
    if field is DAY_OF_WEEK:
        numbers = {number % 7 for number in numbers}
    return Values(listed, star, tuple(sorted(numbers)))


def every(field: Field, step: int = 1) -> Values:
    """``*``, or every ``step``-th value from the smallest on."""
    return values(field, (Span(field.least, field.most, step),), star=True)


def span(field: Field, start: int, end: int, step: int = 1) -> Span:
    """A checked span; a week may end on Sunday as well as start there. WrongValueError when it is reversed."""
    last = 7 if field is DAY_OF_WEEK and end == 0 and start > 0 else end
    if last < start or (LAST_DAY in (start, end) and start != end):
        raise WrongValueError(f"expected a range of {field.name} that ends at or after its start, got {start} to {end}")
    if not 1 <= step <= MOST_STEP:
        raise WrongValueError(
            f"expected a step of 1 to {MOST_STEP}, got {step if abs(step) < 10**40 else 'a larger one'}"
        )
    return Span(start, last, step)


def read_text(field: Field, text: str) -> Values:
    """A field in cron's grammar: ``*``, ``5``, ``1-5``, ``*/10``, ``8-18/2``, ``MON-FRI``, and lists of these.

    Raises:
        WrongValueError: It is not of that grammar, or a number is out of range.
    """
    return values(field, (_term(field, term) for term in text.split(",")), star=text.startswith("*"))


def _term(field: Field, term: str) -> Span:
    body, slash, step_text = term.partition("/")
    if slash and not _NUMBER.fullmatch(step_text):
        raise WrongValueError(f"expected a step of 1 or more behind the / in {field.name}, got {step_text[:40]!r}")
    step = int(step_text) if slash else 1
    if body == "*":
        return span(field, field.least, field.most, step)
    first, dash, last = body.partition("-")
    start = field.number(first)
    if dash:
        return span(field, start, field.number(last), step)
    return span(field, start, field.most if slash and start != LAST_DAY else start, step)
