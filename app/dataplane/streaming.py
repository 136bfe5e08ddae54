"""Rows as the bytes of a file, for who sends them on as fast as they are taken."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

from sqlalchemy.orm import Session

from app.dataplane.compressors import Compression
from app.dataplane.export import ExportStream, copy_as, ended_when
from app.dataplane.export_columns import Selection, select_rows
from app.dataplane.export_formats import FileFormat, row_writer
from app.domain.errors import InvalidRequestError

BLOCKS_AHEAD: Final = 4
_LOOK_UP_S: Final = 0.1
BROKEN_OFF: Final = "!error"
"""Begins the last line of an answer that is not whole; in CSV behind a quote that is never closed."""


@dataclass(frozen=True, slots=True)
class Form:
    """How rows are written."""

    file_format: FileFormat
    compression: Compression
    header: bool


def broken_off(error: Exception, form: Form) -> bytes:
    """What an answer ends with that could not be finished: a line that no reader takes for a row.

    HTTP servers end a body in good order whatever happened to it, so it must be seen in the body itself. A compressed
    file, and an array of JSON, are seen to lack their end.
    """
    if form.compression != "none":
        return b""
    code = getattr(error, "code", "internal.error")
    said = " ".join(str(getattr(error, "detail", "the answer broke off")).replace('"', "'").split())
    quote = '"' if form.file_format == "csv" else ""
    return f"\n{quote}{BROKEN_OFF} {code}: {said}\n".encode()


class _Gone(Exception):  # noqa: N818 - it is a signal: nobody reads on
    pass


class RowStream:
    """The bytes of one answer. A thread has Postgres copy the rows and stays at most some blocks ahead of the reader.

    Args:
        transaction: What the rows are read in; the thread enters and leaves it.
        timeout_s: For all of it, a slow reader's time included.
        over: Called once, when the connection is free again, whatever came of it.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Session]],
        selection: Selection,
        form: Form,
        *,
        timeout_s: float,
        over: Callable[[], None],
    ) -> None:
        self._transaction = transaction
        self._selection = selection
        self._form = form
        self._timeout_s = timeout_s
        self._until = monotonic() + timeout_s
        self._over = over
        self._gone = threading.Event()
        self._blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(BLOCKS_AHEAD)
        self._thread = threading.Thread(target=self._run, name="query", daemon=True)

    def blocks(self) -> Generator[bytes, None, None]:
        """The bytes; what ends them early is raised. Closing the iterator ends the query and frees its connection."""
        self._thread.start()
        try:
            while (block := self._blocks.get()) is not None:
                if isinstance(block, BaseException):
                    raise block
                yield block
        finally:
            self._gone.set()

    def write(self, data: bytes, /) -> None:
        """Hand on a block (``Sink``); waits for the reader."""
        self._put(bytes(data))

    def _put(self, block: bytes | BaseException | None) -> None:
        while True:
            self._check()
            try:
                return self._blocks.put(block, timeout=_LOOK_UP_S)
            except queue.Full:
                continue

    def _check(self) -> None:
        if self._gone.is_set():
            raise _Gone
        if monotonic() > self._until:
            raise self._too_late()

    def _too_late(self) -> InvalidRequestError:
        return InvalidRequestError(
            f"the answer took longer than {self._timeout_s:g} s",
            code="vql.timeout",
            hint="Narrow the query, or ask with mode job.",
        )

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            with self._transaction() as session:
                self._copy(session)
        except _Gone:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where the blocks are read
            last = self._too_late() if monotonic() > self._until else error
        finally:
            self._over()
        self._end(last)

    def _end(self, last: BaseException | None) -> None:
        """Tell the reader, who may have time left to read what is there."""
        while not self._gone.is_set():
            try:
                return self._blocks.put(last, timeout=_LOOK_UP_S)
            except queue.Full:
                if last is not None:
                    with suppress(queue.Empty):
                        self._blocks.get_nowait()
        return None

    def _copy(self, session: Session) -> None:
        form = self._form
        stream = ExportStream(self, compression=form.compression, between=self._check)
        writer = row_writer(form.file_format, stream, self._selection.columns, header=form.header)
        statement = writer.statement(select_rows(self._selection))
        try:
            with ended_when(session, self._must_end):
                copy_as(session, statement, stream, writer.options, into=writer.into)
            writer.finish()
            stream.finish()
        finally:
            stream.stop()
            writer.drop()

    def _must_end(self) -> bool:
        return self._gone.is_set() or monotonic() > self._until
