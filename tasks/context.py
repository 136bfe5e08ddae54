"""What a job type is given to run with: the job, guarded ways to report, and the stores."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from time import monotonic
from typing import Any, BinaryIO, Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.domain.errors import FenceLost, JobCancelled, JobError, JobPaused
from app.domain.job_types import Registry
from app.domain.jobs import Job, Signals
from app.domain.ports import Clock, ObjectStore
from app.domain.texts import check_json, storable
from app.persistence import jobs
from app.persistence.sessions import Sessions
from app.services import index_jobs
from app.services.submissions import Checks, TenantSubmission
from app.services.tables import Tables
from config.settings import Settings
from tasks import files
from tasks.cache import TenantCache
from tasks.counts import count_of
from tasks.extension import Extension
from tasks.log_lines import JobLog, LogLines, exception_facts
from tasks.memory import at_most, resident_mb
from tasks.meter import Meter
from tasks.refused import Refused

_WRITE_EVERY_S: Final = 1.0
_MOST_CAUSES: Final = 20
_LONGEST_STAGE: Final = 255
_MOST_CHECKPOINT_BYTES: Final = 1 << 20
_NO_TYPES: Final = Registry({})
_NO_LIMIT: Final = nullcontext()
_making = threading.Lock()
"""Held to make a part of a context that threads share."""


class HandBack(Exception):  # noqa: N818 - it is a signal, not an error
    """Raised inside a job when its worker shuts down."""


class RunContext:
    """One hold on a job. The worker's heartbeat asks it to stop; the job finds out at its next ``check``.

    Args:
        sessions: Connections that carry the slot's name, so that the engine can end them when the slot is lost.

    ``registry`` holds the job types of the worker that runs the job. What most short jobs never ask for (a ledger, a
    log, payloads to give, something to wait on) is made when it is first asked for.
    """

    def __init__(self, job: Job, *, settings: Settings, sessions: Sessions, objects: ObjectStore, clock: Clock) -> None:
        self.job = job
        self.settings = settings
        self.sessions = sessions
        self.objects = objects
        self.clock = clock
        self.registry = _NO_TYPES
        self._extension: Extension | None = None
        self._stop: BaseException | None = None
        self._stopping: threading.Event | None = None
        self._written_at = 0.0
        self._resident_before_mb: float | None = None
        self._refused: Refused | None = None
        self._lines: LogLines | None = None
        self._logged_at = monotonic()
        self._writing = threading.RLock()
        self._clocks: dict[str, Callable[[], float]] | None = None
        self._meter: Meter | None = None

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.job.id

    def meter(self, clocks: Mapping[str, Callable[[], float]]) -> None:
        """Have this run measured, from ``begin_metering`` on: for jobs that have the process for themselves."""
        self._clocks = dict(clocks)

    def begin_metering(self) -> None:
        """Start the clocks, if the run is measured."""
        if self._clocks is not None:
            self._meter = Meter(self.job.measures.spent, self._clocks)

    @property
    def spent(self) -> dict[str, float] | None:
        """What all runs of the job have spent; ``None`` when this one is not measured."""
        return None if self._meter is None else self._meter.spent()

    def keep_spent(self) -> None:
        """Write what the job has spent, if it can still be written: its end will not."""
        if self._meter is not None:
            with suppress(FenceLost, SQLAlchemyError):
                self._advance(spent=self.spent)

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop, for whatever reason."""
        return self._stop is not None

    def check(self) -> None:
        """Raise what the job was asked to stop for; call it between units of work."""
        if self._stop is not None:
            raise self._stop

    def wait(self, seconds: float) -> None:
        """Sleep, but wake and raise at once when the job is asked to stop."""
        with _making:
            if self._stopping is None:
                self._stopping = threading.Event()
        # Whoever stops the job sets the reason first: it is seen here, or the event there.
        if self._stop is None:
            self._stopping.wait(seconds)
        self.check()

    def stop(self, why: BaseException) -> None:
        """Ask the job to stop; the first reason stays, except that a lost fence outranks all."""
        if self._stop is None or isinstance(why, FenceLost):
            self._stop = why
        if self._stopping is not None:
            self._stopping.set()

    def stop_behind(self, error: BaseException) -> BaseException | None:
        """What the job was asked to stop for, when ``error`` was raised on it."""
        cause: BaseException | None = error
        for _ in range(_MOST_CAUSES):
            if cause is None or cause is self._stop:
                return cause
            cause = cause.__cause__ or cause.__context__
        return None

    def heed(self, signals: Signals) -> None:
        """Take up what a guarded write was told."""
        if signals.cancel_requested:
            self.stop(JobCancelled(signals.cancel_reason or "user"))
        elif signals.paused:
            self.stop(JobPaused("paused on request"))

    def memory_limited(self) -> AbstractContextManager[None]:
        """Hold the job to its memory: an allocation past it is a MemoryError."""
        limit_mb = self.job.resources.memory_mb
        if limit_mb is None:
            return _NO_LIMIT
        self._resident_before_mb = resident_mb()
        return at_most(limit_mb)

    def outgrown(self) -> bool:
        """Whether the job has got more memory all the same: mapped or shared, which its limit does not count."""
        limit_mb, before_mb = self.job.resources.memory_mb, self._resident_before_mb
        return limit_mb is not None and before_mb is not None and resident_mb() - before_mb > limit_mb

    def out_of_memory(self) -> JobError:
        """What a job fails with whose memory was not enough."""
        limit_mb = self.job.resources.memory_mb
        if limit_mb is None:
            return JobError("the job ran out of memory", code="resource.memory")
        return JobError(
            f"the job needed more than the {limit_mb} MB of memory it asked for",
            code="resource.memory",
            hint="Submit it with more memory in its resources, or have it work on less at a time.",
            data={"memory_mb": limit_mb},
        )

    def progress(self, done: int, total: int | None = None, *, stage: str | None = None) -> None:
        """Report how far the job is; written at most once a second, and always with a new stage.

        Raises:
            ValueError: A count is not 0 to ``2**63 - 1``, or the stage is no text, or longer than 255 characters.
        """
        self.check()
        done = count_of("done of a progress", done)
        total = None if total is None else count_of("total of a progress", total)
        if stage is None and monotonic() - self._written_at < _WRITE_EVERY_S:
            return
        if stage is not None and not (isinstance(stage, str) and len(stage) <= _LONGEST_STAGE):
            raise ValueError(f"a stage is a text of at most {_LONGEST_STAGE} characters, got {stage!r:.100}")
        self._written_at = monotonic()
        self._advance(rows_done=done, rows_total=total, stage=None if stage is None else storable(stage))

    def tell(self) -> None:
        """Say that the job is alive where it has no number to show; written at most once a second."""
        self.check()
        if monotonic() - self._written_at >= _WRITE_EVERY_S:
            self._written_at = monotonic()
            self._advance()

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep ``state`` and the records refused before; a later run of the job finds it in ``job.job.checkpoint``."""
        if not isinstance(state, dict):
            raise JobError(f"a checkpoint is a dict, got {state!r:.100}", code="job.checkpoint_invalid")
        check_json(state, "checkpoint", code="job.checkpoint_invalid", most_bytes=_MOST_CHECKPOINT_BYTES)
        self._advance(checkpoint=state)

    def settle(self, config: dict[str, Any]) -> None:
        """Make ``config`` the job's own, from this run on."""
        self._advance(config=config)
        self.job = replace(self.job, config=config)

    def extend(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """Add payloads to the batch this job is a payload of, when it has succeeded; if it fails, none is added."""
        if self._extension is None:
            self._extension = Extension(self.job, self.sessions)
        self._extension.add(payloads, self.checks)

    @property
    def given(self) -> tuple[dict[str, Any], ...]:
        """The payloads that ``extend`` took, ready to be stored."""
        return () if self._extension is None else self._extension.payloads

    @property
    def checks(self) -> Checks:
        """What a request for a job of the tenant is checked against."""
        return Checks(
            self.registry,
            lambda tenant: TenantSubmission(
                tenant, settings=self.settings, sessions=self.sessions, tables=Tables(self.sessions)
            ),
        )

    def submission(self, tenant: str) -> TenantSubmission:
        """What a tenant's places and tables are asked of."""
        return TenantSubmission(
            tenant,
            settings=self.settings,
            sessions=self.sessions,
            tables=Tables(self.sessions),
            objects=self.objects,
        )

    def fail_record(
        self,
        number: int,
        *,
        code: str,
        message: str,
        field: str | None = None,
        raw: str | bytes | None = None,
        first_byte: int = 0,
        end_byte: int = 0,
    ) -> None:
        """Put a record into the ledger with the next write, by the hundreds, or at the end of the run."""
        with self._writing:
            if self._refused is None:
                self._refused = Refused(self.job, raw_rows=self.settings.ledger_raw_rows)
            self._refused.add(number, raw, field=field, code=code, message=message, place=(first_byte, end_byte))
            if self._refused.is_full:
                self._advance()

    @property
    def refused(self) -> int:
        """Records of the job that stand in the ledger."""
        return self.job.error_count if self._refused is None else self._refused.total

    def flush(self) -> None:
        """Write what waits; FenceLost when the job is no longer held."""
        if self._refused is None and self._lines is None:
            return
        with self._writing:
            if self._refused or self._lines:
                self._advance()

    def artifact(
        self,
        name: str,
        stream: BinaryIO | bytes,
        *,
        content_type: str = "application/octet-stream",
        rows: int | None = None,
    ) -> UUID:
        """Store a file with the job; one of the same name is replaced."""
        return files.store(self, name, stream, content_type=content_type, rows=rows).id

    @property
    def cache(self) -> TenantCache:
        """Small values that the tenant's jobs share."""
        return TenantCache(self.sessions, self.job)

    @property
    def log(self) -> JobLog:
        """A logger whose lines bear the job's id, type, tenant and attempt; they stand in the job's own log too."""
        return JobLog(self.job, self._keep_line)

    def _keep_line(self, level: int, event: str, data: Mapping[str, Any]) -> None:
        with self._writing:
            if self._lines is None:
                self._lines = LogLines(self.job)
            self._lines.add(level, event, data)
            if monotonic() - self._logged_at >= _WRITE_EVERY_S:
                self._logged_at = monotonic()
                self._advance()

    def keep_crash(self) -> None:
        """Keep the traceback of the exception that is handled now in the job's own log, if it can still be written."""
        with suppress(FenceLost, SQLAlchemyError):
            self._keep_line(logging.ERROR, "job.crashed", exception_facts())
            self.flush()

    def build_indexes_after(self, session: Session, table: str, *, after: UUID) -> None:
        """Have a job of the system build what a table lacks of its indexes, when another is over in whatever way."""
        index_jobs.build_soon(session, self.job.tenant, table, after=after)

    def _advance(self, **what: Any) -> None:
        with self._writing:
            refused, lines = self._refused, self._lines
            with self.sessions.begin() as session:
                new = 0 if refused is None else refused.write(session)
                logged = 0 if lines is None else lines.write(session)
                signals = jobs.advance(session, self.job, failed=new, **what)
            if refused is not None:
                refused.written(new)
            if lines is not None:
                lines.written(logged)
        self.heed(signals)
