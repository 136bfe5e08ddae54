"""Rows to S3 by COPY: Postgres writes them, a thread hashes, packs and uploads; no row becomes a Python object."""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import psycopg2
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.dataplane.compressors import Compression, compressor
from app.dataplane.vql.compiler import Statement
from app.domain.errors import JobError, TransientError

BLOCK_BYTES: Final = 2**20
BLOCKS_WAITING: Final = 8
BLOCKS_PER_COUNT: Final = 16
_ONE_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LOOK_UP_S: Final = 0.2
_CONNECTION_LOST: Final = frozenset({None, "57P01", "57P02", "57P03", "25P03"})


class Sink(Protocol):
    """Where the bytes of a file go."""

    def write(self, data: bytes, /) -> None:
        """Take the next bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted file as it is stored, and the id of the master key that opens it."""

    bytes: int
    sha256: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Written:
    """What went through a stream: bytes and SHA-256 (hex) of what was written and of what is stored.

    Args:
        sealed: Of a file that was encrypted after that: what then lies in the store.
    """

    plain_bytes: int
    plain_sha256: str
    stored_bytes: int
    stored_sha256: str
    sealed: Sealed | None = None

    @property
    def object_bytes(self) -> int:
        """Of the object in the store."""
        return self.stored_bytes if self.sealed is None else self.sealed.bytes

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Written:
        """The inverse of ``asdict``."""
        sealed = kept.get("sealed")
        return cls(**{**kept, "sealed": None if sealed is None else Sealed(**sealed)})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The moment that an export shows: Postgres's snapshot and the transaction's time."""

    id: str
    taken_at: datetime


class ExportStream(io.RawIOBase):
    """What COPY writes into. Blocks go through a bounded queue to one thread, which hashes, compresses and uploads.

    Args:
        upload: Where the bytes end.
        compression: How they are packed.
        member: Name of the file in a zip.
        between: Called between blocks, and while waiting, in the writer's thread; what it raises stops the export.
    """

    def __init__(
        self, upload: Sink, *, compression: Compression, between: Callable[[], None], member: str = "export"
    ) -> None:
        super().__init__()
        self.plain_bytes = 0
        self._counted_bytes = 0
        self._counted_lines = 0
        self._taken = 0
        self._upload = upload
        self._between = between
        self._compressor = compressor(compression, member=member)
        self._plain_hash = hashlib.sha256()
        self._stored_hash = self._plain_hash if compression == "none" else hashlib.sha256()
        self._stored_bytes = 0
        self._blocks: queue.Queue[bytes | None] = queue.Queue(BLOCKS_WAITING)
        self._stopped = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._worked: Future[None] = self._thread.submit(self._work)

    @property
    def lines(self) -> int:
        """About how many lines were written, by the line ends of every sixteenth block."""
        if not self._counted_bytes:
            return 0
        return self._counted_lines * self.plain_bytes // self._counted_bytes

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, block: Any, /) -> int:
        """Hand one block on; waits while eight are ahead of it.

        Raises:
            JobError, TransientError: The upload failed.
        """
        data = bytes(block)
        if not self._stopped.is_set():
            self._between()
            self._put(data)
        return len(data)

    def finish(self) -> Written:
        """Wait until everything is written to the upload, whose parts are still to be finished."""
        self._put(None)
        while not wait([self._worked], timeout=_LOOK_UP_S).done:
            self._between()
        self._worked.result()
        self._thread.shutdown()
        return Written(
            self.plain_bytes, self._plain_hash.hexdigest(), self._stored_bytes, self._stored_hash.hexdigest()
        )

    def stop(self) -> None:
        """Take nothing more, write nothing more, end the thread; safe after ``finish`` and more than once."""
        self._stopped.set()
        while not self._worked.done():
            try:
                self._blocks.put(None, timeout=_LOOK_UP_S)
            except queue.Full:
                continue
            break
        self._thread.shutdown()

    def _put(self, block: bytes | None) -> None:
        while True:
            if self._worked.done():
                self._worked.result()
                raise ValueError("the stream is finished")
            try:
                self._blocks.put(block, timeout=_LOOK_UP_S)
            except queue.Full:
                self._between()
            else:
                return

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            if not self._stopped.is_set():
                self._take(block)
        if not self._stopped.is_set():
            self._store(self._compressor.flush())

    def _take(self, block: bytes) -> None:
        self.plain_bytes += len(block)
        # To count line ends costs as much as a checksum, so one block stands for sixteen.
        if self._taken % BLOCKS_PER_COUNT == 0:
            self._counted_bytes += len(block)
            self._counted_lines += block.count(b"\n")
        self._taken += 1
        self._plain_hash.update(block)
        self._store(self._compressor.compress(block))

    def _store(self, data: bytes) -> None:
        if data:
            self._stored_bytes += len(data)
            if self._stored_hash is not self._plain_hash:
                self._stored_hash.update(data)
            self._upload.write(data)


def begin_snapshot(session: Session, *, role: str | None = None) -> Snapshot:
    """Make the transaction, which must be new, read-only and of one snapshot.

    Args:
        role: What follows has this role's rights, not the connection's.
    """
    session.execute(text(_ONE_SNAPSHOT))
    entered = "" if role is None else ", set_config('role', :role, true)"
    statement = text(f"SELECT pg_current_snapshot()::text AS id, transaction_timestamp() AS at{entered}")
    row = session.execute(statement, {"role": role} if role else {}).one()
    return Snapshot(row.id, row.at)


def share_snapshot(session: Session) -> str:
    """The name under which other transactions read in this one's snapshot, while this one lasts."""
    return str(session.execute(text("SELECT pg_export_snapshot()")).scalar_one())


def join_snapshot(session: Session, shared: str, *, role: str | None = None) -> None:
    """Make the transaction, which must be new, read-only and of a snapshot that another shares; ``role`` as there."""
    session.execute(text(_ONE_SNAPSHOT))
    # The name is Postgres's own, hexadecimal digits and dashes; a role's is made of a checked tenant's.
    entered = "" if role is None else f'; SET LOCAL ROLE "{role}"'
    session.execute(text(f"SET TRANSACTION SNAPSHOT '{shared}'{entered}"))


def copy_rows(session: Session, statement: Statement, sink: ExportStream, *, header: bool) -> int:
    """Write the statement's rows to ``sink`` as CSV; see ``copy_as``."""
    return copy_as(session, statement, sink, f"FORMAT csv, HEADER {'true' if header else 'false'}", into=sink)


def copy_as(session: Session, statement: Statement, sink: ExportStream, options: str, *, into: io.RawIOBase) -> int:
    """Write the statement's rows to ``into``, which leads to ``sink``, by COPY with these options.

    Returns:
        How many rows, as Postgres counts them.

    Raises:
        JobError: ``export.query_failed``: Postgres cannot run the statement.
        TransientError: ``export.interrupted``: Postgres ended it.
        OperationalError: The connection was lost.
    """
    connection = session.connection()
    # Only in this style are dates the same everywhere, and those of JSON.
    connection.execute(text("SET LOCAL DateStyle = 'ISO'"))
    cursor: Any = connection.connection.cursor()
    bound = text(statement.sql).bindparams(**statement.parameters).compile(dialect=connection.dialect)
    select = cursor.mogrify(str(bound), bound.params).decode()
    # The buffer's write is C: COPY calls it once a row.
    buffer = io.BufferedWriter(into, BLOCK_BYTES)
    try:
        cursor.copy_expert(f"COPY ({select}) TO STDOUT ({options})", buffer)
        buffer.flush()
    except BaseException as error:
        # The buffer flushes once more when it goes away; that must reach nobody.
        sink.stop()
        # The connection may still stand in COPY; only closing it tells Postgres to stop.
        connection.invalidate()
        if isinstance(error, psycopg2.Error):
            raise _explained(error) from error
        raise
    return int(cursor.rowcount)


@contextmanager
def ended_when(session: Session, cancelled: Callable[[], bool]) -> Iterator[None]:
    """End what ``session`` runs inside as soon as ``cancelled`` says so; a sort may give no row for minutes.

    The statement then fails as ``export.interrupted``, and the connection is not used again.
    """
    raw: Any = session.connection().connection.driver_connection
    over = threading.Event()
    fired = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_UP_S):
            if cancelled():
                fired.set()
                # A connection that broke meanwhile has nothing to end.
                with suppress(psycopg2.Error):
                    raw.cancel()
                return

    watcher = threading.Thread(target=watch, name="export-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        if fired.is_set() and session.in_transaction():
            # A cancel that comes late would hit whoever uses the connection next.
            session.connection().invalidate()


def _explained(error: psycopg2.Error) -> Exception:
    said = str(error).strip()
    # A break in the middle of COPY may come as a bare DatabaseError, about which nobody says a word.
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or error.pgcode is None:
        if error.pgcode in _CONNECTION_LOST:
            return OperationalError("COPY", {}, error, connection_invalidated=True)
        return TransientError(f"Postgres ended the export: {said}", code="export.interrupted")
    return JobError(f"Postgres cannot run the export: {said}", code="export.query_failed")
