"""Statements on the books of imports: what each lane has committed of which batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file goes on after some batch.

    Args:
        batch: The number of the next batch.
        byte: Where it begins, after decompression; ``line`` its first line.
        refused: Records that the reader had refused before it.
    """

    batch: int
    byte: int
    line: int
    refused: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A batch of a lane that does not begin where the one before it ended."""

    lane: int
    batch: int
    expected_line: int
    line: int
    expected_byte: int
    byte: int


def add_batch(
    session: Session,
    job_id: UUID,
    *,
    batch: int,
    lane: int,
    lines: tuple[int, int],
    byte_range: tuple[int, int],
    counts: Mapping[str, int],
) -> None:
    """Enter a lane's part of a batch in the books and move the lane's checkpoint to it.

    Args:
        lines: The batch's first and last line, both within; ``byte_range``: its first byte and the one after its last.
        counts: What became of the records of this part.
    """
    session.execute(
        text(
            """
            WITH entered AS (
                INSERT INTO import_batches (job_id, batch, lane, first_line, last_line, first_byte, end_byte, counts)
                VALUES (:job, :batch, :lane, :first_line, :last_line, :first_byte, :end_byte, CAST(:counts AS jsonb))
            )
            INSERT INTO import_lanes (job_id, lane, batch) VALUES (:job, :lane, :batch)
            ON CONFLICT (job_id, lane) DO UPDATE SET batch = excluded.batch
            """
        ),
        {
            "job": job_id,
            "batch": batch,
            "lane": lane,
            "first_line": lines[0],
            "last_line": lines[1],
            "first_byte": byte_range[0],
            "end_byte": byte_range[1],
            "counts": json.dumps(dict(counts)),
        },
    )


def lanes(session: Session, job_id: UUID) -> dict[int, int]:
    """The last batch that each lane has committed; lanes that have none are missing."""
    rows = session.execute(text("SELECT lane, batch FROM import_lanes WHERE job_id = :job"), {"job": job_id})
    return {row.lane: row.batch for row in rows}


def place_after(session: Session, job_id: UUID, batch: int) -> Place:
    """Where the file goes on after ``batch``, which lane 0 has committed."""
    row = session.execute(
        text(
            """
            SELECT last_line, end_byte, (
                SELECT coalesce(sum((counts ->> 'refused')::bigint), 0)::bigint FROM import_batches
                WHERE job_id = :job AND lane = 0 AND batch <= :batch
            ) AS refused
            FROM import_batches WHERE job_id = :job AND lane = 0 AND batch = :batch
            """
        ),
        {"job": job_id, "batch": batch},
    ).one()
    return Place(batch + 1, row.end_byte, row.last_line + 1, row.refused)


def totals(session: Session, job_id: UUID) -> dict[str, int]:
    """The sum of each count over all parts."""
    rows = session.execute(
        text(
            """
            SELECT key, sum(value::bigint)::bigint AS total
            FROM import_batches, jsonb_each_text(counts) WHERE job_id = :job GROUP BY key
            """
        ),
        {"job": job_id},
    )
    return {row.key: row.total for row in rows}


def gaps(session: Session, job_id: UUID, *, first_line: int, first_byte: int, most: int = 10) -> list[Gap]:
    """Parts that do not begin where their lane's part before ended, or the first not at the given place."""
    rows = session.execute(
        text(
            """
            SELECT * FROM (
                SELECT lane, batch, first_line AS line, first_byte AS byte,
                       coalesce(lag(last_line) OVER w + 1, :first_line) AS expected_line,
                       coalesce(lag(end_byte) OVER w, :first_byte) AS expected_byte,
                       coalesce(lag(batch) OVER w + 1, 0) AS expected_batch
                FROM import_batches WHERE job_id = :job WINDOW w AS (PARTITION BY lane ORDER BY batch)
            ) AS parts
            WHERE line <> expected_line OR byte <> expected_byte OR batch <> expected_batch
            ORDER BY lane, batch LIMIT :most
            """
        ),
        {"job": job_id, "first_line": first_line, "first_byte": first_byte, "most": most},
    )
    return [Gap(row.lane, row.batch, row.expected_line, row.line, row.expected_byte, row.byte) for row in rows]


def ends(session: Session, job_id: UUID) -> dict[int, int]:
    """By lane: the byte after its last part."""
    rows = session.execute(
        text("SELECT lane, max(end_byte) AS end_byte FROM import_batches WHERE job_id = :job GROUP BY lane"),
        {"job": job_id},
    )
    return {row.lane: row.end_byte for row in rows}
