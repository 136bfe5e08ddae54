"""Texts of refused rows that the ledger did not keep, read once more from the import's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore
from typing import Final

from app.dataplane.origins import Origin, S3Origin, origin_at
from app.dataplane.plan import Plan
from app.dataplane.reading import opened
from app.dataplane.rereading import Rereader
from app.dataplane.sources import ByteSource
from app.domain.errors import HaulierError, JobError, TransientError, UnavailableError
from app.domain.failed_records import FailedRecord
from app.domain.job_types import Registry, Submission
from app.domain.jobs import Job
from app.domain.ports import ObjectRef, ObjectStore
from config.settings import Settings

_MOST_BYTES: Final = 2**20
"""Of a row that is read for a request; the most, too, that a correction may have."""
_SHEETS_AT_ONCE: Final = 2
"""Each is read by a program that may take ``workbook_memory_mb``."""
_PATIENCE_S: Final = 5.0
TOO_LARGE: Final = "ledger.row_too_large"


class Texts:
    """Those of one import, asked for in the order of its file."""

    def __init__(self, file: Rereader) -> None:
        self._file = file
        self._last = -1

    def sought(self, record: FailedRecord) -> FailedRecord:
        """The record with its text, or with why that cannot be had."""
        try:
            return self._read(record)
        except TransientError as error:
            # Another try would take its time for each of the rows that follow.
            self._file.lost = error
            return replace(record, raw_missing=error.code)

    def needed(self, record: FailedRecord) -> FailedRecord:
        """The same.

        Raises:
            UnavailableError: S3 is away.
        """
        try:
            return self._read(record)
        except TransientError as error:
            raise UnavailableError(error.detail, code=error.code) from error

    def _read(self, record: FailedRecord) -> FailedRecord:
        # Documents of a search mirror have no bytes. What lies before is left: a packed file would be unpacked anew.
        if record.has_text or record.first_byte == record.end_byte or record.line < self._last:
            return record
        if record.end_byte - record.first_byte > _MOST_BYTES:
            return replace(record, raw_missing=TOO_LARGE)
        self._last = record.line
        found = self._file.texts([(record.line, record.first_byte, record.end_byte)])
        if record.line in found:
            raw, is_base64 = found[record.line]
            return replace(record, raw=raw, raw_is_base64=is_base64)
        return replace(record, raw_missing=self._file.lost.code if self._file.lost else None)


class RowTexts:
    """Opens the files of imports."""

    def __init__(
        self,
        registry: Registry,
        objects: ObjectStore,
        settings: Settings,
        submission: Callable[[str], Submission],
    ) -> None:
        self._registry = registry
        self._objects = objects
        self._settings = settings
        self._submission = submission
        self._sheets = BoundedSemaphore(_SHEETS_AT_ONCE)

    @contextmanager
    def of(self, job: Job, plan: Plan) -> Iterator[Texts]:
        """The texts of an import's rows; its file is opened when the first is asked for."""
        with ExitStack() as held, closing(Rereader(partial(self._open, held, job, plan), plan)) as file:
            yield Texts(file)

    def _open(self, held: ExitStack, job: Job, plan: Plan, offset: int) -> ByteSource:
        if plan.sheet is not None:
            held.close()
            if not self._sheets.acquire(timeout=_PATIENCE_S):
                raise TransientError("other requests read workbooks just now", code="xlsx.busy")
            held.callback(self._sheets.release)
        copy = S3Origin(self._objects, ObjectRef(*plan.spool)) if plan.spool else None
        return opened(self._settings, copy or self._origin(job), plan, offset)

    def _origin(self, job: Job) -> Origin:
        """Where the file lies.

        Raises:
            JobError: It cannot be had any more.
        """
        submission = self._submission(job.tenant)
        try:
            kind = self._registry.get(job.type)
            place = kind.source(submission, self._registry.parse(kind, job.config)) if kind.source else None
        except JobError:
            raise
        except HaulierError as error:
            raise JobError(error.detail, code=error.code) from error
        if place is None:
            raise JobError(f"job {job.id} has no file that can be read again", code="source.changed")
        return origin_at(
            place,
            objects=self._objects,
            received=submission.received,
            import_root=self._settings.import_root,
        )
