"""Partitions of the tables that grow with every job, by the time in a job's id; a past one is dropped whole.

A job's events, failed rows and books stand in the partitions of the same period, since all are cut by the job's id. One
partition beside them takes what none was made for: ids of elsewhere, and the jobs of a time for which nobody prepared.
The order of the events is cut by its own time: a segment may name jobs of any age, and goes when no older job is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.persistence.job_rows import ENDED

PERIOD: Final = timedelta(days=7)
AHEAD: Final = 2
"""Periods prepared beside the present one."""
_COLUMNS: Final = {
    "before_images": "job_id",
    "failed_records": "job_id",
    "import_batches": "job_id",
    "job_logs": "job_id",
    "job_events": "job_id",
    "jobs": "id",
}
TABLES: Final = tuple(_COLUMNS)
"""In the order in which a period is dropped: the jobs last, so that a drop that was cut off goes on."""
SEGMENTS: Final = "event_segments"
"""Cut by ``at``."""
_FILLED_TO: Final = {"jobs": 70}
"""Per cent: rows that are updated often find room for their next version on the same page."""
_HANGING_ON: Final = (
    "artifacts",
    "export_names",
    "families",
    "import_lanes",
    "job_needs",
    "pipeline_stages",
    "schedule_fires",
)
"""Tables in one piece whose rows go with their jobs."""
_PATIENCE: Final = "SET LOCAL lock_timeout = '2s'"
"""Whatever asks for a table waits behind one that waits to lock it."""
_EPOCH: Final = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday."""


@dataclass(frozen=True, slots=True)
class Period:
    """A week, from a Monday (UTC) to the next."""

    start: datetime

    @property
    def end(self) -> datetime:
        """The start of the next."""
        return self.start + PERIOD

    @property
    def suffix(self) -> str:
        """What the names of its partitions end with."""
        return f"{self.start:%Y%m%d}"


def period_of(at: datetime) -> Period:
    """The period of an instant."""
    return Period(at - (at - _EPOCH) % PERIOD)


def first_id(at: datetime) -> UUID:
    """The least UUID of version 7 whose time is ``at``."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def prepare(session: Session, *, now: datetime) -> list[Period]:
    """Make the partitions of now and of the next periods; those that were missing.

    Rows that came meanwhile and stand in the partition for everything else are moved.

    Raises:
        OperationalError: The tables were in use for too long; nothing was done.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('haulier partitions'))"))
    present = period_of(now)
    made = _made(session)
    missing = [
        period for step in range(AHEAD + 1) if (period := Period(present.start + PERIOD * step)).suffix not in made
    ]
    if missing:
        session.execute(text(_PATIENCE))
    for period in missing:
        for table, column in _COLUMNS.items():
            _make(session, table, column, period, {"low": first_id(period.start), "high": first_id(period.end)})
        _make(session, SEGMENTS, "at", period, {"low": period.start, "high": period.end})
    return missing


def _made(session: Session, table: str = "jobs") -> set[str]:
    names = session.execute(
        text("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)"),
        {"table": table},
    )
    return {row.name.removeprefix(f"{table}_") for row in names} - {"other"}


def _make(session: Session, table: str, column: str, period: Period, bounds: Mapping[str, UUID | datetime]) -> None:
    name = f"{table}_{period.suffix}"
    filled = f" WITH (fillfactor = {_FILLED_TO[table]})" if table in _FILLED_TO else ""
    session.execute(text(f"LOCK TABLE {table}_other IN ACCESS EXCLUSIVE MODE"))
    session.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL){filled}"))
    session.execute(
        text(
            f"""
            WITH moved AS (DELETE FROM {table}_other WHERE {column} >= :low AND {column} < :high RETURNING *)
            INSERT INTO {name} SELECT * FROM moved
            """
        ),
        bounds,
    )
    session.execute(
        text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{bounds['low']}') TO ('{bounds['high']}')")
    )


def over(session: Session, *, before: datetime) -> list[Period]:
    """The periods, oldest first, that nobody needs: all of their jobs, and their artifacts, ended before that."""
    made = [_of_suffix(suffix) for suffix in sorted(_made(session))]
    return [period for period in made if period.end <= before and not _is_needed(session, period, before)]


def over_segments(session: Session) -> list[Period]:
    """The periods whose segments name no job that is left: those before all periods of jobs."""
    oldest = min(_made(session), default="")
    return [_of_suffix(suffix) for suffix in sorted(_made(session, SEGMENTS)) if suffix < oldest]


def _of_suffix(suffix: str) -> Period:
    return Period(datetime.strptime(suffix, "%Y%m%d").replace(tzinfo=UTC))


def _is_needed(session: Session, period: Period, before: datetime) -> bool:
    return bool(
        session.execute(
            text(
                f"""
                SELECT EXISTS (SELECT FROM artifacts WHERE job_id >= :low AND job_id < :high AND removed_at IS NULL)
                    OR EXISTS (SELECT FROM jobs WHERE id >= :low AND id < :high
                               AND (state NOT IN ({ENDED}) OR finished_at > :before))
                    OR EXISTS (SELECT FROM event_segments, unnest(jobs) AS e (job_id)
                               WHERE last_seq IS NULL AND job_id >= :low AND job_id < :high)
                """
            ),
            {"low": first_id(period.start), "high": first_id(period.end), "before": before},
        ).scalar_one()
    )


def drop(session: Session, table: str, period: Period) -> None:
    """Drop one table's part of a period, which is free space when the transaction commits; fine when it is gone.

    Raises:
        OperationalError: The table was in use for too long; nothing was done.
    """
    session.execute(text(_PATIENCE))
    if table == "jobs":
        bounds = {"low": first_id(period.start), "high": first_id(period.end)}
        for other in _HANGING_ON:
            session.execute(text(f"DELETE FROM {other} WHERE job_id >= :low AND job_id < :high"), bounds)
    session.execute(text(f"DROP TABLE IF EXISTS {table}_{period.suffix}"))
