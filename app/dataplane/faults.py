"""Why a record did not become a row: what the ledger says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Fault:
    """A refused record's reason.

    Args:
        code: Stable machine word such as ``csv.ragged`` or ``value.integer``.
        message: A sentence that says what was expected and what came.
        field: The column at fault, when it is one.
    """

    code: str
    message: str
    field: str | None = None


def shown(value: str) -> str:
    """``value`` quoted for a message, shortened when long."""
    if len(value) <= _SHOWN_CHARACTERS:
        return repr(value)
    return f"{value[:_SHOWN_CHARACTERS]!r}… ({len(value)} characters)"
