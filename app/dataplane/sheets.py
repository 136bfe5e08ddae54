"""XLSX: a sheet is read as the lines of NDJSON that a program makes of it, a line for each of its rows."""

from __future__ import annotations

import fcntl
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version
from typing import IO, Any, Final

import msgspec

from app.dataplane.compression import Limits, check_growth
from app.dataplane.origins import Origin
from app.dataplane.plan import Options, Sheet
from app.dataplane.sheet_lines import Block, lines_of
from app.dataplane.sheet_reader import REFUSED, VERSION, Found, Frame, Wanted, behind
from app.dataplane.sources import READ_BYTES
from app.domain.errors import JobError
from app.domain.ports import ObjectInfo
from app.domain.tables import Table
from config.settings import Settings

READER: Final = f"{VERSION}, python-calamine {version('python-calamine')}"
"""What reads sheets: equal ones write the same lines for the same sheet."""
_MOST_SAID: Final = 4_000
_AHEAD_BYTES: Final = 1 << 20
"""What the program may write before it is read, where Linux grants so much: then it works on beside the import."""


def sheet_wanted(settings: Settings, table: Table | None, options: Options) -> Sheet:
    """The sheet that the options name."""
    names = _names(table, options, settings.max_columns)
    return Sheet(options.sheet, names, options.skip_rows, options.fill_merged, READER)


class SheetSource:
    """The lines of a sheet, from its first record on; made while they are read.

    Args:
        go_on: Called between pieces; raises when there is to be an end.
    Raises:
        JobError: ``xlsx.*``, ``source.bomb``, ``source.corrupt``, ``csv.empty``.
        TransientError: Another attempt may do better.
    """

    def __init__(
        self, settings: Settings, origin: Origin, info: ObjectInfo, sheet: Sheet, *, go_on: Callable[[], None]
    ) -> None:
        if sheet.reader != READER:
            raise JobError(
                f"the sheet was first read by reader {sheet.reader}, this one is {READER}: its lines may be others",
                code="xlsx.reader_changed",
            )
        wanted = Wanted(
            path="",
            sheet=sheet.sheet,
            names=None if sheet.names is None else list(sheet.names),
            skip_rows=sheet.skip_rows,
            fill_merged=sheet.fill_merged,
            max_cells=settings.max_workbook_cells,
            memory_bytes=settings.workbook_memory_mb * 2**20,
        )
        self._size_bytes = info.size_bytes
        self._go_on = go_on
        self._lines = io.BytesIO()
        with ExitStack() as stack:
            self._program = stack.enter_context(_reading(settings, origin, info, wanted, go_on))
            self._frame = self._program.frame()
            self._stack = stack.pop_all()
        self._is_next = True

    @property
    def found(self) -> Found:
        """What was found so far: the names; how wide the sheet is, once all lines were read."""
        return self._frame.found

    @property
    def stored_bytes_read(self) -> int:
        """How far the file was read, by the part of the sheet that was."""
        return round(self._size_bytes * self._frame.part)

    def block(self) -> bytes | Block:
        """The next lines, some at a time; ``b""`` at the end; raises as this class."""
        if rest := self._lines.read():
            return rest
        if not self._is_next:
            self._frame = self._program.frame()
        self._is_next = not self._frame.size_bytes
        return self._program.body(self._frame)

    def read(self, size: int) -> bytes:
        """The same as a stream: at most ``size`` bytes."""
        data = self._lines.read(size)
        if not data:
            self._lines = io.BytesIO(lines_of(self.block()))
            data = self._lines.read(size)
        return data

    def skip(self, size: int) -> None:
        """Read so many bytes away."""
        while size:
            self._go_on()
            some = self.block()
            length = len(some) if isinstance(some, bytes) else some.size_bytes
            if not length:
                raise JobError(f"the sheet ends {size} bytes before the checkpoint", code="source.corrupt")
            if length > size:
                self._lines = io.BytesIO(lines_of(some))
                self._lines.seek(size)
                return
            size -= length

    def close(self) -> None:
        """End the program, remove the copy of the file."""
        self._stack.close()


def sheets_of(settings: Settings, origin: Origin, info: ObjectInfo) -> list[str]:
    """The names of a workbook's sheets; errors as ``SheetSource``, whose reading finds what is wrong with one."""
    memory_bytes = settings.workbook_memory_mb * 2**20
    wanted = Wanted("", None, None, 0, fill_merged=False, max_cells=0, memory_bytes=memory_bytes)
    with _reading(settings, origin, info, wanted, lambda: None) as program:
        names = program.output.read()
        program.check_end()
        return msgspec.json.decode(names, type=list[str])


def _names(table: Table | None, options: Options, max_columns: int) -> tuple[str, ...] | None:
    if not isinstance(options.header, bool):
        return options.header
    if options.header:
        return None
    by_number = [f"column_{number}" for number in range(1, max_columns + 1)]
    return tuple(by_number if options.mapping or table is None else table.column_names)


def _copy(origin: Origin, info: ObjectInfo, file: IO[bytes], go_on: Callable[[], None]) -> None:
    with closing(origin.open(info, 0)) as source:
        while piece := source.read(READ_BYTES):
            file.write(piece)
            go_on()
    file.flush()


class _Program:
    """The program at work."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes], memory_bytes: int) -> None:
        self._process = process
        self._said = said
        self._memory_bytes = memory_bytes

    @property
    def output(self) -> IO[bytes]:
        """What it writes."""
        if self._process.stdout is None:
            raise RuntimeError("the program was started without a pipe")
        return self._process.stdout

    def frame(self) -> Frame:
        """What goes before the next lines; raises what the program ended of, unless it ended well."""
        head = self.output.readline()
        if not head.endswith(b"\n"):
            self.check_end()
        frame = msgspec.json.decode(head, type=Frame)
        if not frame.size_bytes:
            self.check_end()
        return frame

    def body(self, frame: Frame) -> bytes | Block:
        """The lines behind it."""
        return behind(frame, self._read)

    def _read(self, size: int) -> bytes:
        data = self.output.read(size)
        if len(data) < size:
            self.check_end()
            raise RuntimeError(f"the program ended after {len(data)} of {size} bytes")
        return data

    def check_end(self) -> None:
        """Raise what it ended of, unless it ended well."""
        status = self._process.wait()
        if not status:
            return
        self._said.seek(0)
        said = self._said.read(_MOST_SAID)
        if status == REFUSED:
            code, detail = json.loads(said)
            raise JobError(detail, code=code)
        raise JobError(
            f"the workbook needs more than the {self._memory_bytes >> 20} MB of memory it may take, or breaks what "
            f"reads it (status {status})",
            code="xlsx.too_large",
            data={"said": said.decode("utf-8", "replace")[-500:]},
        )


@contextmanager
def _reading(
    settings: Settings, origin: Origin, info: ObjectInfo, wanted: Wanted, go_on: Callable[[], None]
) -> Iterator[_Program]:
    """The program at work on a copy of the file."""
    most = min(settings.max_workbook_bytes, settings.max_source_bytes)
    check_growth(origin, info, Limits(most, settings.max_compression_ratio))
    # Without a name: whatever is killed, nothing of it stays.
    with tempfile.TemporaryFile() as file:
        _copy(origin, info, file, go_on)
        with _started(wanted, file.fileno()) as program:
            yield program


@contextmanager
def _started(wanted: Wanted, file: int) -> Iterator[_Program]:
    wanted = msgspec.structs.replace(wanted, path=f"/dev/fd/{file}")
    command = [sys.executable, "-m", "app.dataplane.sheet_reader", msgspec.json.encode(wanted).decode()]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(  # noqa: S603 - our own program, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, pass_fds=[file]
        ) as process,
    ):
        with suppress(OSError, AttributeError):
            fcntl.fcntl(process.stdout or -1, fcntl.F_SETPIPE_SZ, _AHEAD_BYTES)
        try:
            yield _Program(process, said, wanted.memory_bytes)
        finally:
            process.kill()


def seen_of(found: Found) -> dict[str, Any]:
    """What the job's result tells of it."""
    return {"format": "xlsx", "sheet": found.sheet, "columns": found.width}
