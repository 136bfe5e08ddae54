"""What the ledger keeps of a row that a job refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """One refused row of a file.

    Args:
        line: The first physical line that it stands on, counted from 1.
        first_byte: Where it begins in the decompressed file.
        end_byte: Where it ends, exclusive.
        raw: Its text; ``None`` for rows beyond the number whose text is kept.
        raw_is_base64: ``raw`` is base64 of bytes that are no text.
        field: The column at fault; ``None`` when it is the whole row.
        code: Stable machine word.
        message: What was expected and what came.
    """

    line: int
    first_byte: int
    end_byte: int
    raw: str | None
    raw_is_base64: bool
    field: str | None
    code: str
    message: str
    at: datetime
