"""Changes to the values of an import before they are checked, a whole column at a time; what is empty stays empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from app.dataplane.faults import Fault, shown
from app.dataplane.grammar import Refused
from app.domain.job_types import JobConfig
from app.domain.tables import ColumnType

Values = list[bytes]
"""A column of a chunk: UTF-8 without NUL."""
Changed = tuple[list[Values], dict[int, Fault]]
"""The columns that come of a change, as ``targets`` names them, and the faults by place."""
Name = Annotated[str, Field(min_length=1, max_length=1_000)]
_KNOWN_VALUES: Final = 65_536


class _Transform(JobConfig):
    field: Name = Field(description="A column, or a header of the file.")

    @property
    def targets(self) -> tuple[str, ...]:
        """What it writes."""
        return (self.field,)

    @property
    def source(self) -> str | None:
        """What it needs; ``None``: it fills a column that the file does not have."""
        return self.field


class ChangeText(_Transform):
    """Another spelling of the same text."""

    operation: Literal["trim", "lowercase", "uppercase", "title_case"]

    def apply(self, values: Values, _kind: ColumnType | None) -> Changed:
        """The values, spelt so."""
        return [_SPELLINGS[self.operation](values)], {}


def _all_at_once(change: Callable[[str], str]) -> Callable[[Values], Values]:
    """``change`` of a column in one call, for what looks at no more than a value's own letters."""
    return lambda values: change(b"\0".join(values).decode()).encode().split(b"\0") if values else values


def _trim(values: Values) -> Values:
    if b"".join(values).isascii():
        return list(map(bytes.strip, values))
    return [value.decode().strip().encode() for value in values]


_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")


def _capitalized(word: re.Match[str]) -> str:
    """O'Brien and D'Arcy, but Don't."""
    text = word[0].capitalize()
    return text[:2] + text[2:].capitalize() if text[1:2] in ("'", "’") else text


_SPELLINGS: Final[dict[str, Callable[[Values], Values]]] = {
    "trim": _trim,
    "lowercase": _all_at_once(str.lower),
    "uppercase": _all_at_once(str.upper),
    "title_case": _all_at_once(lambda text: _WORD.sub(_capitalized, text)),
}


class FormatPhone(_Transform):
    """Telephone numbers as E.164 has them."""

    operation: Literal["format_phone"]
    region: str | None = Field(None, description="Of numbers without a country code, such as DE.")

    @field_validator("region")
    @classmethod
    def _is_region(cls, value: str | None) -> str | None:
        import phonenumbers

        if value is not None and value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("expected a country of two capital letters, such as DE")
        return value

    def apply(self, values: Values, _kind: ColumnType | None) -> Changed:
        """The values as +491701234567; what is no possible number is a fault."""
        return _each(values, self.field, lambda value: _e164(value, self.region))


@lru_cache(maxsize=_KNOWN_VALUES)
def _e164(value: str, region: str | None) -> str:
    import phonenumbers

    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        without = "" if region else ", with its country code since no region is given"
        raise Refused("transform.phone", f"a telephone number{without}")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


_DIRECTIVE: Final = re.compile(r"%(.?)")
_DIRECTIVES: Final = frozenset("dmYybBaAHIMSfpzj%")
_OF_TIME: Final = frozenset("HIMSfpz")


class ParseDate(_Transform):
    """Dates as they are written somewhere, to those of ISO 8601."""

    operation: Literal["parse_date"]
    formats: list[Annotated[str, Field(min_length=2, max_length=100)]] = Field(
        min_length=1, max_length=20, description="Such as %d.%m.%Y or %m/%d/%y %I:%M %p; the first that fits is taken."
    )
    zone: str | None = Field(None, description="Of times without an offset, such as Europe/Berlin; UTC when left out.")

    @field_validator("formats")
    @classmethod
    def _are_formats(cls, value: list[str]) -> list[str]:
        for one in value:
            found = set(_DIRECTIVE.findall(one))
            if not found <= _DIRECTIVES or not found & {"Y", "y"} or not ({"d", "m"} <= _as_numbers(found)):
                raise ValueError(
                    f"expected a day, a month and a year by {', '.join('%' + mark for mark in sorted(_DIRECTIVES))}, "
                    f"got {one!r}"
                )
        return value

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None else ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("expected a time zone, such as Europe/Berlin") from None

    def apply(self, values: Values, kind: ColumnType | None) -> Changed:
        """The values as 2024-05-31 or 2024-05-31T12:30:00+00:00; of a column of dates the day alone."""
        formats = tuple(self.formats)
        return _each(values, self.field, lambda value: _iso(value, formats, self.zone, kind is ColumnType.DATE))


def _as_numbers(found: set[str]) -> set[str]:
    """The directives with names of months taken for numbers, and a day of the year for both."""
    return found | ({"m"} if found & {"b", "B"} else set()) | ({"d", "m"} if "j" in found else set())


@lru_cache(maxsize=_KNOWN_VALUES)
def _iso(value: str, formats: tuple[str, ...], zone: str | None, day_alone: bool) -> str:
    for form in formats:
        try:
            found = datetime.strptime(value.strip(), form)  # noqa: DTZ007 - the zone is put in below
        except ValueError:
            continue
        if day_alone or not set(_DIRECTIVE.findall(form)) & _OF_TIME:
            return found.date().isoformat()
        return (found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone) if zone else UTC)).isoformat()
    raise Refused("transform.date", f"a date as {' or '.join(formats)}")


class Split(_Transform):
    """One field into several columns."""

    operation: Literal["split"]
    into: list[Name] = Field(min_length=2, max_length=20)
    separator: str = Field(" ", min_length=1, max_length=20)
    from_end: bool = Field(False, description="Part at the last separators; what is left over stays in the first.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.into)) < len(self.into):
            raise ValueError("expected each column of into once")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns it fills."""
        return tuple(self.into)

    def apply(self, values: Values, _kind: ColumnType | None) -> Changed:
        """A value's parts, without blanks around; those it does not have are empty."""
        count, separator = len(self.into), self.separator.encode()
        part = bytes.rsplit if self.from_end else bytes.split
        rows = [part(value.strip(), separator, count - 1) for value in values]
        filled = [[*map(bytes.strip, row), *[b""] * (count - len(row))] for row in rows]
        return [list(column) for column in zip(*filled, strict=True)] or [[] for _ in self.into], {}


class Default(_Transform):
    """A value where there is none."""

    operation: Literal["default"]
    value: str = Field(min_length=1, max_length=10_000)

    @property
    def source(self) -> str | None:
        """Nothing: the file need not have the column."""
        return None

    def apply(self, values: Values, _kind: ColumnType | None) -> Changed:
        """The values, none of them empty."""
        value = self.value.encode()
        return [[one or value for one in values]], {}


Transform = Annotated[ChangeText | FormatPhone | ParseDate | Split | Default, Field(discriminator="operation")]


def _each(values: Sequence[bytes], field: str, change: Callable[[str], str]) -> Changed:
    """Every value changed by itself, one that recurs once."""
    known: dict[bytes, Any] = {value: _one(value, field, change) for value in set(values)}
    found = list(map(known.__getitem__, values))
    faults = {place: one for place, one in enumerate(found) if isinstance(one, Fault)}
    return [[b"" if place in faults else one for place, one in enumerate(found)] if faults else found], faults


def _one(value: bytes, field: str, change: Callable[[str], str]) -> bytes | Fault:
    if not value.strip():
        return b""
    text = value.decode()
    try:
        return change(text).encode()
    except Refused as refused:
        return Fault(refused.code, f"{field}: expected {refused.expected}, got {shown(text)}", field)
