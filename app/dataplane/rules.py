"""Rules that the rows of an import keep beyond their columns' types: which do not, and what is wrong with them.

A rule looks at whole columns. What is empty breaks no rule but ``required``, and what does not fit its column's type is
left to the check of types.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from app.dataplane.comparing import FAMILY, ORDERED, readings
from app.dataplane.faults import shown
from app.dataplane.patterns import Pattern, PatternError
from app.dataplane.transforms import Name
from app.domain.job_types import JobConfig
from app.domain.plugins import find
from app.domain.row_plugins import VALIDATORS, Validator
from app.domain.tables import Column
from app.domain.texts import storable

Values = Sequence[bytes]
Broken = Iterator[tuple[int, str]]
"""Places of rows that break a rule, and what each has that it should not."""


class _Rule(JobConfig):
    message: str | None = Field(None, min_length=1, max_length=500, description="Instead of our own, in the ledger.")
    code: ClassVar[str]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns it looks at; a fault is laid to the first."""
        raise NotImplementedError

    def misfit(self, _columns: Sequence[Column]) -> str | None:
        """Why it cannot be asked of these columns; ``None`` when it can."""
        return None

    def broken(self, values: Sequence[Values], columns: Sequence[Column]) -> Broken:
        """The rows that break it, in their order; ``values`` of each of ``fields``."""
        raise NotImplementedError


class _OfColumn(_Rule):
    column: Name

    @property
    def fields(self) -> tuple[str, ...]:
        """Its one column."""
        return (self.column,)


class Required(_OfColumn):
    """A value is there."""

    rule: Literal["required"]
    code: ClassVar[str] = "rule.required"

    def broken(self, values: Sequence[Values], _columns: Sequence[Column]) -> Broken:
        """The rows where it is empty."""
        if b"" in values[0]:
            yield from ((place, "expected a value, got none") for place, value in enumerate(values[0]) if not value)


class Length(_OfColumn):
    """So many characters."""

    rule: Literal["length"]
    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=0)
    code: ClassVar[str] = "rule.length"

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _refuse_no_bounds(self.min or None, self.max)
        return self

    def broken(self, values: Sequence[Values], _columns: Sequence[Column]) -> Broken:
        """The rows where it is shorter or longer."""
        few, many = self.min, float("inf") if self.max is None else self.max
        own = values[0]
        lengths = list(map(len, own if b"".join(own).isascii() else map(bytes.decode, own)))
        if not lengths or (max(lengths) <= many and min(lengths) >= few):
            return
        for place, length in enumerate(lengths):
            if length and not few <= length <= many:
                yield place, f"expected {_span(self.min or None, self.max)} characters, got {length}"


class Matches(_OfColumn):
    """A pattern matches the whole value."""

    rule: Literal["pattern"]
    pattern: str = Field(min_length=1, max_length=1_000, description="As RE2 has them: no look-around, no references.")
    code: ClassVar[str] = "rule.pattern"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            Pattern(value)
        except PatternError as error:
            raise ValueError(f"the pattern cannot be used: {error}") from None
        return value

    @cached_property
    def _compiled(self) -> Pattern:
        return Pattern(self.pattern)

    def broken(self, values: Sequence[Values], _columns: Sequence[Column]) -> Broken:
        """The rows where it matches not, or a part alone."""
        for place in self._compiled.misfits(values[0]):
            yield place, f"expected {self.pattern}, got {shown(values[0][place].decode())}"


class OneOf(_OfColumn):
    """One of some values."""

    rule: Literal["enum"]
    values: list[Annotated[str, Field(max_length=1_000)]] = Field(min_length=1, max_length=10_000)
    ignore_case: bool = False
    code: ClassVar[str] = "rule.enum"

    @cached_property
    def _known(self) -> frozenset[bytes]:
        return frozenset(self._spelt(value).encode() for value in self.values)

    def _spelt(self, value: str) -> str:
        return value.casefold() if self.ignore_case else value

    def broken(self, values: Sequence[Values], _columns: Sequence[Column]) -> Broken:
        """The rows where it is another."""
        foreign = {one for one in set(values[0]) - self._known if one and not self._knows(one)}
        if foreign:
            expected = ", ".join(self.values[:10]) + (" …" if len(self.values) > 10 else "")
            for place, value in enumerate(values[0]):
                if value in foreign:
                    yield place, f"expected one of {expected}, got {shown(value.decode())}"

    def _knows(self, value: bytes) -> bool:
        return self.ignore_case and self._spelt(value.decode()).encode() in self._known


Bound = int | float | str


class Range(_OfColumn):
    """A number or an instant between two others, both included."""

    rule: Literal["range"]
    min: Bound | None = Field(None, description="A number; of dates and times as 2024-05-31 or 2024-05-31T12:00:00Z.")
    max: Bound | None = None
    code: ClassVar[str] = "rule.range"

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _refuse_no_bounds(self.min, self.max)
        return self

    def misfit(self, columns: Sequence[Column]) -> str | None:
        """A range of text is none, and neither is one of another type than the column's."""
        kind = columns[0].type
        if FAMILY.get(kind) not in ("number", "instant"):
            return f"expected a column of numbers, dates or times, got {kind.value}"
        for bound in (self.min, self.max):
            if bound is not None and readings([str(bound).encode()], kind)[0] is None:
                return f"expected bounds of type {kind.value}, got {bound!r}"
        return None

    def broken(self, values: Sequence[Values], columns: Sequence[Column]) -> Broken:
        """The rows where it is less or more."""
        low, high = (
            None if bound is None else readings([str(bound).encode()], columns[0].type)[0]
            for bound in (self.min, self.max)
        )
        found = readings(values[0], columns[0].type)
        present = [one for one in found if one is not None]
        if not present or ((low is None or low <= min(present)) and (high is None or max(present) <= high)):
            return
        for place, one in enumerate(found):
            if one is not None and ((low is not None and one < low) or (high is not None and one > high)):
                yield place, f"expected {_span(self.min, self.max)}, got {shown(values[0][place].decode())}"


class Unique(_Rule):
    """No two records of the file have the same value; the first has it, whatever becomes of that record later."""

    rule: Literal["unique"]
    columns: list[Name] = Field(min_length=1, max_length=32)
    code: ClassVar[str] = "rule.unique"

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that are unique together."""
        return tuple(self.columns)

    def keys(self, values: Sequence[Values]) -> list[bytes | None]:
        """What each row is known by; ``None`` when a value of it is empty."""
        rows = zip(*values, strict=True)
        return [b"\0".join(row) if all(row) else None for row in rows]

    def said(self, values: Sequence[Values], place: int) -> str:
        """What is wrong with a row whose key was there before."""
        shared = ", ".join(shown(one[place].decode()) for one in values)
        return f"expected another {', '.join(self.columns)} than every line before has, got {shared} again"


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class CrossField(_OfColumn):
    """Two columns of a row stand to one another as they should."""

    rule: Literal["cross_field"]
    operator: Literal["=", "!=", "<", "<=", ">", ">="]
    other: Name
    code: ClassVar[str] = "rule.cross_field"

    @property
    def fields(self) -> tuple[str, ...]:
        """Both."""
        return (self.column, self.other)

    def misfit(self, columns: Sequence[Column]) -> str | None:
        """Numbers are not compared with dates, and truth values with nothing."""
        one, other = (FAMILY.get(column.type) for column in columns)
        if one is None or one != other or (one not in ORDERED and self.operator not in ("=", "!=")):
            kinds = " and ".join(column.type.value for column in columns)
            return f"expected two columns that {self.operator} can compare, got {kinds}"
        return None

    def broken(self, values: Sequence[Values], columns: Sequence[Column]) -> Broken:
        """The rows where both are there and stand otherwise."""
        holds = _OPERATORS[self.operator]
        pairs = zip(*(readings(own, column.type) for own, column in zip(values, columns, strict=True)), strict=True)
        for place, (one, other) in enumerate(pairs):
            if one is not None and other is not None and not holds(one, other):
                got = " and ".join(shown(own[place].decode()) for own in values)
                yield place, f"expected {self.column} {self.operator} {self.other}, got {got}"


class Custom(_Rule):
    """A rule of an installed package."""

    rule: Literal["custom"]
    name: Name = Field(description="Of its entry point in the group haulier.validators.")
    columns: list[Name] = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)
    code: ClassVar[str] = "rule.custom"

    @property
    def fields(self) -> tuple[str, ...]:
        """What it is shown."""
        return tuple(self.columns)

    @cached_property
    def validator(self) -> Validator:
        """The package's; a PermanentError when it cannot be had."""
        return find(VALIDATORS, self.name, Validator)

    def broken(self, values: Sequence[Values], _columns: Sequence[Column]) -> Broken:
        """The rows that it names."""
        rows = [dict(zip(self.columns, map(bytes.decode, row), strict=True)) for row in zip(*values, strict=True)]
        if rows:
            found: Mapping[int, str] = self.validator.check(rows, self.params)
            yield from ((place, storable(found[place])) for place in sorted(found) if 0 <= place < len(rows))


Rule = Annotated[
    Required | Length | Matches | OneOf | Range | Unique | CrossField | Custom, Field(discriminator="rule")
]


def _refuse_no_bounds(low: Bound | None, high: Bound | None) -> None:
    if low is None and high is None:
        raise ValueError("expected min, max or both, got neither")


def _span(low: Bound | None, high: Bound | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
