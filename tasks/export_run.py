"""One export from its first run to its manifest: files written from one snapshot, each joined once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.dataplane.compressors import Compression
from app.dataplane.encrypted_lines import LineKey
from app.dataplane.export import (
    ExportStream,
    Sealed,
    Snapshot,
    begin_snapshot,
    copy_as,
    ended_when,
    join_snapshot,
    share_snapshot,
)
from app.dataplane.export_columns import KeyRange, Selection, count_invalid, select_rows
from app.dataplane.export_formats import FileFormat, content_type_of, row_writer
from app.dataplane.export_ranges import fingerprint, ranges
from app.dataplane.query import estimated_rows
from app.domain.errors import JobError, TransientError
from app.domain.job_types import Result
from app.domain.ports import ObjectRef, ObjectUpload
from app.security.master_keys import MasterKeys
from app.security.sealed_files import Sealer
from app.services.downloads import context_of
from app.services.reading import reader_of
from app.storage.sealed import SealedUpload
from tasks.context import RunContext
from tasks.export_delivery import Delivery
from tasks.export_place import Place
from tasks.export_proof import publish
from tasks.export_report import ExportReport
from tasks.export_state import ExportState, FileState

_GONE: Final = ("s3.no_such_upload", "s3.refused")


@dataclass(frozen=True, slots=True)
class Shape:
    """How an export is written.

    Args:
        max_rows: Of one file; ``max_bytes`` likewise, before compression.
        parallel: Files that are written side by side.
        stem: The key without its suffix; ``None`` for the job's id.
        numbered: Take another name when there is a file of this one.
        bucket: ``None`` for the installation's own.
        folder: Below the export root, instead of a bucket.
        sink: Instead of either, a bucket of the tenant's own.
        line_key: Encrypts each line.
        encrypted: Whether what is stored is encrypted.
        delivery: The sink of another package that is brought the files.
    """

    file_format: FileFormat
    compression: Compression
    header: bool
    in_parts: bool
    max_rows: int | None
    max_bytes: int | None
    parallel: int
    stem: str | None
    suffix: str
    numbered: bool
    bucket: str | None
    folder: str | None
    sink: str | None = None
    line_key: LineKey | None = None
    encrypted: bool = False
    delivery: Delivery | None = None

    @property
    def content_type(self) -> str:
        """Of each file."""
        return content_type_of(self.file_format, self.compression)

    @property
    def stored_type(self) -> str:
        """Of each file as it is stored."""
        return "application/octet-stream" if self.encrypted else self.content_type


class Export:
    """An export that this run of the job works on.

    Args:
        vql: The query as it was asked, for the manifest.
        asked: A hash of all that decides what the files hold and where they go.
    """

    def __init__(self, job: RunContext, selection: Selection, shape: Shape, *, vql: dict[str, Any], asked: str) -> None:
        self._job = job
        self._selection = selection
        self._shape = shape
        self._vql = vql
        self._asked = asked
        self._place = Place(
            job, stem=shape.stem, suffix=shape.suffix, bucket=shape.bucket, folder=shape.folder, sink=shape.sink
        )
        self._changing = threading.Lock()
        self._failed = threading.Event()
        self._before = (0, 0)
        self._written: dict[str, tuple[int, int]] = {}

    def run(self) -> Result:
        """Write what is left to be written, and the manifest."""
        with self._place.refusals():
            return self._run()

    def _run(self) -> Result:
        kept = self._job.job.checkpoint
        state = self._asked_for(ExportState.from_json(kept)) if kept else None
        if state is not None and not self._place.take(state.stem):
            # It failed, and another job has taken the name since.
            state = None
        if state is not None:
            self._settle(state)
        if state is None or not all(one.joined for one in state.files):
            state = self._write(state)
            state.delivered = 0
        if state.finished_at is None:
            state.finished_at = self._job.clock.now().isoformat()
            self._keep(state)
        return publish(self._job, self._selection, self._shape, self._place, state, vql=self._vql)

    def _asked_for(self, state: ExportState) -> ExportState | None:
        """What an earlier run kept; ``None`` when it was asked for something else and had sent no file whole.

        Raises:
            JobError: ``export.config_changed``: it had.
        """
        if state.asked == self._asked:
            return state
        if any(one.joined or one.etags for one in state.files):
            raise JobError("files are written by another config than the job has now", code="export.config_changed")
        return None

    def _settle(self, state: ExportState) -> None:
        """Join what an earlier run had sent whole; drop what it had not, so that it can never join it either."""
        self._remove_given_up(state)
        for one in state.files:
            ref = ObjectRef(state.bucket, one.key)
            if one.joined:
                one.joined = self._place.holds(ref, _stored_bytes(one))
            if one.joined or one.upload_id is None:
                continue
            if one.etags is None or not self._joined(ref, one):
                self._place.store.abort_upload(ref, one.upload_id)
                one.upload_id = one.etags = one.written = None
                one.rows = 0

    def _joined(self, ref: ObjectRef, one: FileState) -> bool:
        try:
            info = self._place.store.complete_multipart(ref, str(one.upload_id), one.etags or [])
        except JobError as error:
            if error.code not in _GONE:
                raise
            return False
        one.joined = info.size_bytes == _stored_bytes(one)
        return one.joined

    def _write(self, before: ExportState | None) -> ExportState:
        reader = reader_of(self._job.sessions, self._job.job.tenant)
        with self._job.sessions.begin() as session:
            snapshot = begin_snapshot(session, role=reader)
            # The snapshot lives as long as this transaction, which is idle while other connections write.
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            report = ExportReport(self._job, estimated_rows(session, select_rows(self._selection)))
            try:
                # It reads the table, which may take long, and says meanwhile that it does.
                with ended_when(session, lambda: self._must_end(report)):
                    state = self._begin(session, snapshot, before)
            except DBAPIError:
                # An end that was asked for is not a failure.
                self._job.check()
                raise
            if not self._shape.in_parts:
                self._write_file(session, state, state.files[0], report)
            else:
                self._write_parts(session, state, report, reader)
        return state

    def _begin(self, session: Session, snapshot: Snapshot, before: ExportState | None) -> ExportState:
        """Go on with the files of ``before`` if the table is what it was, else begin anew."""
        stamp = fingerprint(session, self._selection) if self._shape.in_parts else None
        if before is not None and stamp is not None and before.fingerprint == stamp:
            return before
        bounds = self._bounds(session) if self._shape.in_parts else [KeyRange()]
        given_up = [] if before is None else [one.key for one in before.files if one.joined]
        restarted = 0 if before is None else before.restarted + bool(given_up)
        stem = self._free_stem() if before is None else before.stem
        keys = self._place.keys(stem, len(bounds) if self._shape.in_parts else None, restarted=restarted)
        state = ExportState(
            bucket=self._place.bucket,
            stem=stem,
            manifest=self._place.manifest(stem, in_parts=self._shape.in_parts).key,
            snapshot=snapshot,
            asked=self._asked,
            files=[FileState(key, within) for key, within in zip(keys, bounds, strict=True)],
            fingerprint=stamp,
            left_out=count_invalid(session, self._selection) if self._selection.valid_only else None,
            restarted=restarted,
            given_up=given_up,
            elsewhere=self._place.elsewhere,
        )
        self._keep(state)
        self._remove_given_up(state)
        return state

    def _remove_given_up(self, state: ExportState) -> None:
        """Again by the next run: the one that gave them up may be killed before it comes to it."""
        self._place.store.delete([ObjectRef(state.bucket, key) for key in state.given_up])
        state.given_up = []

    def _free_stem(self) -> str:
        return self._place.free_stem(in_parts=self._shape.in_parts, numbered=self._shape.numbered)

    def _bounds(self, session: Session) -> list[KeyRange]:
        header = sum(len(column.name) + 1 for column in self._selection.columns) if self._shape.header else 0
        most = self._shape.max_bytes
        return ranges(
            session,
            self._selection,
            max_rows=self._shape.max_rows,
            max_bytes=None if most is None else max(1, most - header),
            json=self._shape.file_format != "csv",
        )

    def _write_parts(self, session: Session, state: ExportState, report: ExportReport, reader: str | None) -> None:
        shared = share_snapshot(session)
        self._before = state.rows, state.plain_bytes

        def write(one: FileState) -> None:
            if self._failed.is_set():
                return
            try:
                with self._job.sessions.begin() as own:
                    join_snapshot(own, shared, role=reader)
                    self._write_file(own, state, one, report)
            except BaseException:
                self._failed.set()
                raise

        with ThreadPoolExecutor(self._shape.parallel, thread_name_prefix="export-part") as threads:
            waiting = [threads.submit(write, one) for one in state.files if not one.joined]
        for one in waiting:
            one.result()

    def _write_file(self, session: Session, state: ExportState, one: FileState, report: ExportReport) -> None:
        ref = ObjectRef(state.bucket, one.key)
        upload = self._start(ref)
        kept = False
        try:
            # Before the first byte, and fenced: the run that takes over aborts this upload; ours can then join nothing.
            one.upload_id = upload.upload_id
            self._keep(state)
            stream = ExportStream(
                upload,
                compression=self._shape.compression,
                between=lambda: self._tell(one.key, stream, writer.rows, report),
                member=f"{self._job.id}.{self._shape.file_format}",
            )
            writer = row_writer(
                self._shape.file_format,
                stream,
                self._selection.columns,
                header=self._shape.header,
                line_key=self._shape.line_key,
            )
            statement = writer.statement(select_rows(self._selection, one.within if self._shape.in_parts else None))
            try:
                with ended_when(session, lambda: self._must_end(report)):
                    rows = copy_as(session, statement, stream, writer.options, into=writer.into)
                writer.finish()
                written = stream.finish()
            except TransientError:
                # An end that was asked for is not a failure.
                self._job.check()
                raise
            finally:
                stream.stop()
                writer.drop()
            etags = upload.finish_parts()
            if isinstance(upload, SealedUpload):
                written = replace(written, sealed=Sealed(upload.size_bytes, upload.sha256, upload.key_id))
            self._job.check()
            with self._changing:
                one.rows, one.written, one.etags = rows, written, etags
                # Fenced again: only the parts of the run that holds the job are ever joined.
                self._job.checkpoint(state.as_json())
            # A later run can join these parts, so they outlive a failure from here on.
            kept = True
            upload.complete(etags)
            one.joined, one.etags = True, None
        finally:
            if not kept:
                upload.abort()

    def _start(self, ref: ObjectRef) -> ObjectUpload:
        name = ref.key.rsplit("/", 1)[-1]
        upload = self._place.store.start_upload(ref, content_type=self._shape.stored_type, filename=name)
        if not self._shape.encrypted:
            return upload
        job = self._job
        sealer = Sealer(MasterKeys(job.settings.master_keys), context=context_of(job.job.tenant, job.id, ref))
        return SealedUpload(upload, sealer)

    def _keep(self, state: ExportState) -> None:
        with self._changing:
            self._job.checkpoint(state.as_json())

    def _tell(self, key: str, stream: ExportStream, rows: int, report: ExportReport) -> None:
        if self._failed.is_set():
            raise TransientError("another file of the export failed", code="export.interrupted")
        with self._changing:
            self._written[key] = rows, stream.plain_bytes
            rows, size_bytes = (sum(column) for column in zip(self._before, *self._written.values(), strict=True))
        report(rows=rows, size_bytes=size_bytes)

    def _must_end(self, report: ExportReport) -> bool:
        return self._failed.is_set() or report.must_end(size_bytes=sum(size for _, size in self._written.values()))


def _stored_bytes(one: FileState) -> int | None:
    return None if one.written is None else one.written.object_bytes
