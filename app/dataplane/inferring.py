"""What the fields of a file are, by their values: a type with how sure it is, whether one is always there, examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.dataplane.chunks import NULL
from app.dataplane.coercion import coerce_column
from app.domain.tables import Column, ColumnType

_T = ColumnType
_TYPES: Final = (_T.BOOLEAN, _T.INTEGER, _T.BIGINT, _T.NUMERIC, _T.DATE, _T.TIMESTAMPTZ, _T.UUID, _T.JSON)
"""From the narrowest on; ``text`` is what is none of them."""
_ENOUGH: Final = 0.95
"""The part of the values that must fit: a file of dates with some bad ones is a file of dates."""
_FIRST: Final = 100
_EXAMPLES: Final = 3
_EXAMPLE_CHARACTERS: Final = 80
_LEADING_ZERO: Final = re.compile(rb"[+-]?0[0-9]")
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Inferred:
    """A field of a file.

    Args:
        name: As the header has it; ``column`` as a column might be called.
        type: Of ``ColumnType``; ``confidence`` is the part of the values that fits it.
        required: No value is empty; ``unique``: none stands twice either. Both among the records that were looked at.
        max_length: The characters of the longest.
    """

    name: str
    column: str
    type: str
    confidence: float
    required: bool
    unique: bool
    max_length: int
    examples: list[str]

    def as_json(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def infer(name: str, values: Sequence[bytes]) -> Inferred:
    """What a field is, of which ``values`` are some."""
    present = [value for value in values if value and value != NULL]
    kind, confidence = _type_of(present)
    return Inferred(
        name=name,
        column=plain(name) or "column",
        type=kind.value,
        confidence=confidence,
        required=bool(values) and len(present) == len(values),
        unique=bool(values) and len(set(present)) == len(values),
        max_length=max((len(value.decode()) for value in present), default=0),
        examples=[value.decode()[:_EXAMPLE_CHARACTERS] for value in list(dict.fromkeys(present))[:_EXAMPLES]],
    )


def plain(name: str) -> str:
    """A name as a column or a table might have it; empty when nothing is left."""
    return _NOT_IN_NAMES.sub("_", name.strip().lower()).strip("_")[:59]


def _type_of(values: list[bytes]) -> tuple[ColumnType, float]:
    if not values:
        return _T.TEXT, 0.0
    for kind in _TYPES:
        if _share(values[:_FIRST], kind) >= _ENOUGH / 2 and (share := _share(values, kind)) >= _ENOUGH:
            return kind, round(share, 3)
    return _T.TEXT, 1.0


def _share(values: list[bytes], kind: ColumnType) -> float:
    """The part of the values that fits a type and looks like it."""
    if kind is _T.BOOLEAN and not {value.lower() for value in values} - {b"0", b"1"}:
        return 0.0
    if kind is _T.JSON and not all(value[:1] in (b"{", b"[") for value in values):
        return 0.0
    if kind in (_T.INTEGER, _T.BIGINT, _T.NUMERIC) and any(map(_LEADING_ZERO.match, values)):
        return 0.0  # a number that begins with zero is a name
    _, faults = coerce_column(values, Column("x", kind), required=False)
    return 1 - len(faults) / len(values)
