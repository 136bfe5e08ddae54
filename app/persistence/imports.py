"""Statements on the books of imports: what each lane has committed of which batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.batch_sizes import SizeUse
from app.persistence.partitions import first_id


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


@dataclass(frozen=True, slots=True)
class Entered:
    """A batch as it stands in the books.

    Args:
        batch: Its number, from 0; ``lanes`` how many have written their part of it.
        rows: Records of those parts; ``failed`` were refused.
        seconds: What the slowest lane took.
    """

    batch: int
    lanes: int
    first_line: int
    last_line: int
    first_byte: int
    end_byte: int
    rows: int
    failed: int
    seconds: float

    @property
    def rows_per_s(self) -> float | None:
        """How fast it was written."""
        return self.rows / self.seconds if self.seconds else None


def add_batch(
    session: Session,
    job_id: UUID,
    *,
    batch: int,
    lane: int,
    lines: tuple[int, int],
    byte_range: tuple[int, int],
    counts: Mapping[str, int],
    seconds: float,
) -> None:
    """Enter a lane's part of a batch in the books and move the lane's checkpoint to it.

    Args:
        lines: The batch's first and last line, both within; ``byte_range``: its first byte and the one after its last.
        counts: What became of the records of this part.
        seconds: How long the lane was at work on it.
    """
    session.execute(
        text(
            """
            WITH entered AS (
                INSERT INTO import_batches
                    (job_id, batch, lane, first_line, last_line, first_byte, end_byte, counts, seconds)
                VALUES (:job, :batch, :lane, :first_line, :last_line, :first_byte, :end_byte, CAST(:counts AS jsonb),
                    :seconds)
            )
            INSERT INTO import_lanes AS kept (job_id, lane, batch, seconds) VALUES (:job, :lane, :batch, :seconds)
            ON CONFLICT (job_id, lane) DO UPDATE SET batch = excluded.batch, seconds = kept.seconds + excluded.seconds
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
            "seconds": seconds,
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


def records_upto(session: Session, job_id: UUID, batch: int) -> int:
    """How many records there are to the end of a batch that every lane has committed."""
    return int(
        session.execute(
            text(
                "SELECT coalesce(sum((counts ->> 'read')::bigint), 0)::bigint FROM import_batches "
                "WHERE job_id = :job AND batch <= :batch"
            ),
            {"job": job_id, "batch": batch},
        ).scalar_one()
    )


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


def spent(session: Session, job_id: UUID) -> tuple[int, int]:
    """What a job had read and refused when its error budget last stopped it; nothing when that never was."""
    row = session.execute(
        text(
            """
            SELECT coalesce(data -> 'spent', data #> '{error,data,spent}') AS spent FROM job_events
            WHERE job_id = :job AND (data ? 'spent' OR data #> '{error,data}' ? 'spent')
            ORDER BY number DESC LIMIT 1
            """
        ),
        {"job": job_id},
    ).first()
    return (row.spent["read"], row.spent["failed"]) if row else (0, 0)


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


def entered(session: Session, job_id: UUID, *, after: int, limit: int) -> list[Entered]:
    """The batches behind number ``after`` that some lane has entered, in the order of the file."""
    rows = session.execute(
        text(
            """
            SELECT batch, count(*) AS lanes, min(first_line) AS first_line, max(last_line) AS last_line,
                   min(first_byte) AS first_byte, max(end_byte) AS end_byte,
                   sum((counts ->> 'read')::bigint)::bigint AS rows,
                   sum((counts ->> 'failed')::bigint)::bigint AS failed, max(seconds) AS seconds
            FROM import_batches WHERE job_id = :job AND batch > :after GROUP BY batch ORDER BY batch LIMIT :limit
            """
        ),
        {"job": job_id, "after": after, "limit": limit},
    )
    return [Entered(**row._mapping) for row in rows]


def use_of_sizes(session: Session, tenant: str, table: str, *, since: datetime) -> list[SizeUse]:
    """What imports into a table, submitted since then and completed, came to by their batch size, smallest first.

    An import without a full batch, or of batches that ended early, is left out, for it says nothing of that size.
    """
    rows = session.execute(
        text(
            """
            WITH imports AS MATERIALIZED (
                SELECT j.result ->> 'batch_rows' AS size, j.rows_done AS rows, j.error_count AS failed, l.seconds,
                       l.batch
                FROM (
                    SELECT job_id, max(seconds) AS seconds, max(batch) AS batch
                    FROM import_lanes WHERE job_id >= :first GROUP BY job_id
                ) AS l JOIN jobs AS j ON j.id = l.job_id AND j.id >= :first
                WHERE j.tenant = :tenant AND j.state = 'completed' AND j.result ->> 'table' = :table
            )
            SELECT size::integer AS batch_size, count(*) AS jobs, sum(rows)::bigint AS rows,
                   sum(failed)::bigint AS failed, sum(seconds) AS seconds,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY rows / seconds) AS rows_per_s
            FROM imports WHERE rows >= size::integer AND rows > batch * size::integer AND seconds > 0
            GROUP BY size::integer ORDER BY 1
            """
        ),
        {"tenant": tenant, "table": table, "first": first_id(since)},
    )
    return [SizeUse(**row._mapping) for row in rows]
