"""Tells how far an export is, and learns that it is to stop."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import FenceLost
from app.persistence import jobs
from tasks.context import RunContext

log = logging.getLogger(__name__)

_REPORT_EVERY_S: Final = 1.0
_QUERY_EVERY_S: Final = 30.0
"""Between two words of an export that no row has come of; less where the stall timeout is short."""


class ExportReport:
    """Tells how far an export is, at most once a second, and stops it when the job is to stop.

    Rows are worked out from the bytes written; Postgres counts them exactly at the end. Their total is the planner's
    guess until then.
    """

    def __init__(self, job: RunContext, estimated: int) -> None:
        self._job = job
        self._estimated = estimated
        self._told_at = 0.0
        self._query_every_s = min(_QUERY_EVERY_S, job.settings.stall_timeout_s / 4)
        self._queried_at = -self._query_every_s

    def __call__(self, *, rows: int, size_bytes: int) -> None:
        """Say how many rows and bytes are written, if it is time to."""
        self._job.check()
        if monotonic() - self._told_at < _REPORT_EVERY_S:
            return
        self._told_at = monotonic()
        rows = max(0, rows)
        self._tell("exporting", rows_done=rows, rows_total=max(rows, self._estimated), bytes_done=size_bytes)
        self._job.check()

    def must_end(self, *, size_bytes: int) -> bool:
        """Whether the job is to stop; asked while Postgres works, which before the first row may take it hours.

        So long as no block has come, the job says that it waits for one: it has not stalled.
        """
        if not size_bytes and monotonic() - self._queried_at >= self._query_every_s:
            self._queried_at = monotonic()
            try:
                self._tell("querying")
            except FenceLost as error:
                self._job.stop(error)
            except SQLAlchemyError as error:
                log.warning("store.waiting", extra={"error": str(error)})
        return self._job.cancelled

    def _tell(self, stage: str, **progress: Any) -> None:
        with self._job.sessions.begin() as session:
            signals = jobs.advance(session, self._job.job, stage=stage, **progress)
        self._job.heed(signals)
