"""The statements that write the ledger of failed records."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.failed_records import FIRST_DOCUMENT
from app.domain.texts import storable

_NULL: Final = "\\N"
_COPY_BYTES: Final = 1 << 18
"""Read at once: for each piece the thread has to wait for the reader of the file to let it have its turn."""


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


def _escaped(text: str) -> str:
    """As COPY has it; several times faster than one ``translate``."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def add(session: Session, tenant: str, job_id: UUID, records: Iterable[Entry]) -> int:
    """Store refused records by COPY; how many they were."""
    buffer = io.StringIO()
    count, job = 0, str(job_id)
    for record in records:
        values = (
            job,
            str(record.line),
            tenant,
            str(record.first_byte),
            str(record.end_byte),
            _NULL if record.raw is None else _escaped(record.raw),
            "t" if record.raw_is_base64 else "f",
            _NULL if record.field is None else _escaped(record.field),
            _escaped(record.code),
            _escaped(storable(record.message)),
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
                _COPY_BYTES,
            )
        finally:
            cursor.close()
    return count


def add_documents(session: Session, tenant: str, job_id: UUID, documents: Sequence[Entry]) -> int:
    """Store documents that the search mirror refused, numbered on from the job's last one; how many they were."""
    last: int = session.execute(
        text("SELECT coalesce(max(line), :first) FROM failed_records WHERE job_id = :job_id AND line >= :first"),
        {"job_id": job_id, "first": FIRST_DOCUMENT},
    ).scalar_one()
    return add(session, tenant, job_id, (replace(one, line=last + n) for n, one in enumerate(documents, 1)))


def keep(session: Session, tenant: str, job_id: UUID, records: Sequence[Entry]) -> int:
    """Store refused records of which some may stand in the ledger already; how many were new."""
    rows = session.execute(
        text(
            """
            INSERT INTO failed_records (job_id, tenant, line, first_byte, end_byte, raw, raw_is_base64, field, code,
                                        message)
            SELECT :job_id, :tenant, given.* FROM jsonb_to_recordset(CAST(:given AS jsonb)) AS given (
                line bigint, first_byte bigint, end_byte bigint, raw text, raw_is_base64 boolean, field text, code text,
                message text
            ) ORDER BY given.line
            ON CONFLICT (job_id, line) DO NOTHING RETURNING line
            """
        ),
        {"job_id": job_id, "tenant": tenant, "given": json.dumps([asdict(record) for record in records])},
    )
    return len(rows.all())
