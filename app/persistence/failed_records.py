"""Statements on what stands in the ledger: the rows of files that jobs refused, and what became of them since."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.failed_records import FIRST_DOCUMENT, FailedGroup, FailedRecord

_READ: Final = text(
    """
    SELECT line, first_byte, end_byte, raw, raw_is_base64, field, code, message, at, corrected, resolved_by, resolved_at
    FROM failed_records
    WHERE job_id = :job_id AND tenant = :tenant AND line > :after
    ORDER BY line LIMIT :limit
    """
)


def of_job(session: Session, tenant: str, job_id: UUID, *, after: int = -1, limit: int = 100) -> list[FailedRecord]:
    """A job's failed records behind line ``after``, in the order of the file, at most ``limit``."""
    rows = session.execute(_READ, {"job_id": job_id, "tenant": tenant, "after": after, "limit": limit})
    return [FailedRecord(*row) for row in rows]


def groups(session: Session, tenant: str, job_id: UUID) -> list[FailedGroup]:
    """A job's failed records by code and field, the largest group first."""
    rows = session.execute(
        text(
            """
            WITH groups AS (
                SELECT code, field, count(*) AS count, count(*) FILTER (WHERE resolved_at IS NULL) AS unresolved,
                       min(line) AS line
                FROM failed_records WHERE job_id = :job_id AND tenant = :tenant GROUP BY code, field
            )
            SELECT g.code, g.field, g.count, g.unresolved, g.line, r.message, r.raw
            FROM groups AS g JOIN failed_records AS r ON r.job_id = :job_id AND r.line = g.line
            ORDER BY g.count DESC, g.line
            """
        ),
        {"job_id": job_id, "tenant": tenant},
    )
    return [FailedGroup(*row) for row in rows]


def of_line(session: Session, tenant: str, job_id: UUID, line: int) -> FailedRecord | None:
    """The failed record of a line."""
    found = of_job(session, tenant, job_id, after=line - 1, limit=1)
    return found[0] if found and found[0].line == line else None


def of_lines(session: Session, tenant: str, job_id: UUID, lines: Collection[int]) -> dict[int, FailedRecord]:
    """The failed records of some lines; those that are not in the ledger are missing."""
    rows = session.execute(
        text(
            """
            SELECT line, first_byte, end_byte, raw, raw_is_base64, field, code, message, at, corrected, resolved_by,
                   resolved_at
            FROM failed_records WHERE job_id = :job_id AND tenant = :tenant AND line = ANY (:lines)
            """
        ),
        {"job_id": job_id, "tenant": tenant, "lines": list(lines)},
    )
    return {row.line: FailedRecord(*row) for row in rows}


def correct(session: Session, tenant: str, job_id: UUID, texts: Mapping[int, str]) -> set[int]:
    """Give lines another text; those that are unresolved in the ledger, which got it."""
    rows = session.execute(
        text(
            f"""
            UPDATE failed_records AS kept SET corrected = given.value
            FROM jsonb_each_text(CAST(:texts AS jsonb)) AS given
            WHERE job_id = :job_id AND tenant = :tenant AND line = given.key::bigint AND resolved_at IS NULL
                AND line < {FIRST_DOCUMENT}
            RETURNING line
            """
        ),
        {"job_id": job_id, "tenant": tenant, "texts": json.dumps(texts)},
    )
    return set(rows.scalars())


_REPLAYABLE: Final = f"""
    job_id = :job_id AND tenant = :tenant AND line > :after AND line < {FIRST_DOCUMENT} AND resolved_at IS NULL
    AND (CAST(:codes AS text[]) IS NULL OR code = ANY (CAST(:codes AS text[])))
"""
_HAS_TEXT: Final = "coalesce(corrected, raw) IS NOT NULL"


def unresolved(session: Session, tenant: str, job_id: UUID, codes: Collection[str] | None = None) -> tuple[int, int]:
    """How many failed records no replay has loaded, of some codes or all, and how many of these have a text."""
    row = session.execute(
        text(
            f"SELECT count(*) AS waiting, count(*) FILTER (WHERE {_HAS_TEXT}) AS texts FROM failed_records "
            f"WHERE {_REPLAYABLE}"
        ),
        {"job_id": job_id, "tenant": tenant, "after": -1, "codes": _listed(codes)},
    ).one()
    return row.waiting, row.texts


def without_text(
    session: Session, tenant: str, job_id: UUID, *, after: int, codes: Collection[str] | None, limit: int
) -> list[tuple[int, int, int]]:
    """Line, first byte and end of the next unresolved records that the ledger has no text of."""
    rows = session.execute(
        text(
            f"SELECT line, first_byte, end_byte FROM failed_records "
            f"WHERE {_REPLAYABLE} AND NOT {_HAS_TEXT} ORDER BY line LIMIT :limit"
        ),
        {"job_id": job_id, "tenant": tenant, "after": after, "codes": _listed(codes), "limit": limit},
    )
    return [(row.line, row.first_byte, row.end_byte) for row in rows]


def take(
    session: Session,
    tenant: str,
    job_id: UUID,
    *,
    after: int,
    up_to: int | None = None,
    codes: Collection[str] | None,
    read: Collection[int] = (),
    limit: int,
) -> list[FailedRecord]:
    """The next unresolved records that have a text, behind line ``after``; no other replay of the job has them then.

    One replay at a time: the lock comes before the look, so that what it waited for is seen.

    Args:
        up_to: The last line of interest; ``None`` is all.
        read: Lines whose text the caller has.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"replay {job_id}"})
    rows = session.execute(
        text(
            f"""
            SELECT line, first_byte, end_byte, raw, raw_is_base64, field, code, message, at, corrected, resolved_by,
                   resolved_at
            FROM failed_records
            WHERE {_REPLAYABLE} AND ({_HAS_TEXT} OR line = ANY (:read))
                AND (CAST(:up_to AS bigint) IS NULL OR line <= :up_to)
            ORDER BY line LIMIT :limit FOR UPDATE
            """
        ),
        {
            "job_id": job_id,
            "tenant": tenant,
            "after": after,
            "up_to": up_to,
            "codes": _listed(codes),
            "read": list(read),
            "limit": limit,
        },
    )
    return [FailedRecord(*row) for row in rows]


def resolve(session: Session, tenant: str, job_id: UUID, lines: Collection[int], *, by: UUID) -> None:
    """Note that a job has loaded these records after all."""
    session.execute(
        text(
            """
            UPDATE failed_records SET resolved_by = :by, resolved_at = clock_timestamp()
            WHERE job_id = :job_id AND tenant = :tenant AND line = ANY (:lines)
            """
        ),
        {"job_id": job_id, "tenant": tenant, "lines": list(lines), "by": by},
    )


def refuse_again(session: Session, tenant: str, job_id: UUID, faults: Mapping[int, Mapping[str, str | None]]) -> None:
    """Give records the ``code``, ``field`` and ``message`` that they were refused with this time."""
    session.execute(
        text(
            """
            UPDATE failed_records SET code = value ->> 'code', field = value ->> 'field', message = value ->> 'message'
            FROM jsonb_each(CAST(:faults AS jsonb)) AS given
            WHERE job_id = :job_id AND tenant = :tenant AND line = given.key::bigint
            """
        ),
        {"job_id": job_id, "tenant": tenant, "faults": json.dumps(faults)},
    )


def resolved_by(session: Session, tenant: str, job_id: UUID, by: UUID) -> int:
    """How many of a job's failed records another job has loaded."""
    found = session.execute(
        text("SELECT count(*) FROM failed_records WHERE job_id = :job_id AND tenant = :tenant AND resolved_by = :by"),
        {"job_id": job_id, "tenant": tenant, "by": by},
    )
    return int(found.scalar_one())


def _listed(codes: Collection[str] | None) -> list[str] | None:
    return None if codes is None else list(codes)
