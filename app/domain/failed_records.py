"""What the ledger keeps of a row that a job refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

_STAGES: Final = {
    "csv": "read",
    "json": "read",
    "transform": "transform",
    "enrich": "enrich",
    "rule": "validate",
    "value": "validate",
    "db": "load",
    "mirror": "mirror",
}
FIRST_DOCUMENT: Final = 10**12
"""Documents that a search mirror refused have no line of a file: a ledger counts them from here on."""


def stage_of(code: str) -> str | None:
    """Where in an import a record is refused with this code; ``None`` for codes of other job types."""
    return _STAGES.get(code.partition(".")[0])


def record_id(job_id: UUID, line: int) -> str:
    """What a refused row is called wherever it is named."""
    return f"{job_id}:{line}"


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
        corrected: The text that is to be loaded in its place; ``None`` while nobody has corrected it.
        raw_missing: Code of why ``raw`` cannot be had, where it was sought in the file; ``None`` elsewhere.
        resolved_by: The job that loaded it after all, at ``resolved_at``; ``None`` while none has.
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
    corrected: str | None = None
    resolved_by: UUID | None = None
    resolved_at: datetime | None = None
    raw_missing: str | None = None

    @property
    def has_text(self) -> bool:
        """Whether the ledger has a text that it can be read from."""
        return self.raw is not None or self.corrected is not None

    @property
    def stage(self) -> str | None:
        """Where it was refused."""
        return stage_of(self.code)


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """The failed records of a job that have a code and a field in common.

    Args:
        unresolved: Those of ``count`` that no replay has loaded.
        line: Of the first of them; ``message`` and ``raw`` are that record's.
    """

    code: str
    field: str | None
    count: int
    unresolved: int
    line: int
    message: str
    raw: str | None

    @property
    def stage(self) -> str | None:
        """Where they were refused."""
        return stage_of(self.code)
