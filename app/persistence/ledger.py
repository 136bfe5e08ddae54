"""The statement that writes the ledger of failed records."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

_NULL: Final = "\\N"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written of a refused record; the database adds the time (``domain.failed_records`` is what is read)."""

    line: int
    first_byte: int
    end_byte: int
    raw: str | None
    raw_is_base64: bool
    field: str | None
    code: str
    message: str


def add(session: Session, tenant: str, job_id: UUID, records: Iterable[Entry]) -> int:
    """Store refused records by COPY; how many they were."""
    buffer = io.StringIO()
    count = 0
    for record in records:
        values = (
            str(job_id),
            str(record.line),
            tenant,
            str(record.first_byte),
            str(record.end_byte),
            _NULL if record.raw is None else record.raw.translate(_ESCAPES),
            "t" if record.raw_is_base64 else "f",
            _NULL if record.field is None else record.field.translate(_ESCAPES),
            record.code.translate(_ESCAPES),
            record.message.replace("\0", "\ufffd").translate(_ESCAPES),
        )
        buffer.write("\t".join(values) + "\n")
        count += 1
    if count:
        buffer.seek(0)
        cursor: Any = session.connection().connection.cursor()
        try:
            cursor.copy_expert(
                "COPY failed_records (job_id, line, tenant, first_byte, end_byte, raw, raw_is_base64, field, code, "
                "message) FROM STDIN",
                buffer,
            )
        finally:
            cursor.close()
    return count
