"""XLSX: a sheet is converted once, to NDJSON in S3 whose lines are the sheet's rows; that is what is read."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import IO, Any, Final

import msgspec

from app.dataplane.compression import Limits, check_growth
from app.dataplane.origins import Origin
from app.dataplane.plan import Options
from app.dataplane.sheet_reader import REFUSED, Found, Wanted
from app.dataplane.sources import READ_BYTES
from app.domain.errors import JobError
from app.domain.ports import ObjectInfo
from app.domain.tables import Table
from config.settings import Settings

_MOST_SAID: Final = 4_000


@contextmanager
def converted(
    settings: Settings,
    origin: Origin,
    info: ObjectInfo,
    table: Table | None,
    options: Options,
    *,
    go_on: Callable[[], None],
) -> Iterator[Converted]:
    """The sheet that the options name.

    Args:
        go_on: Called between pieces; raises when there is to be an end.
    Raises:
        JobError: ``xlsx.*``, ``source.bomb``, ``source.corrupt``, ``csv.empty``.
        TransientError: Another attempt may do better.
    """
    wanted = Wanted(
        path="",
        sheet=options.sheet,
        names=_names(table, options, settings.max_columns),
        skip_rows=options.skip_rows,
        fill_merged=options.fill_merged,
        max_cells=settings.max_workbook_cells,
        memory_bytes=settings.workbook_memory_mb * 2**20,
    )
    with _reading(settings, origin, info, wanted, go_on) as lines:
        yield Converted(lines)


def sheets_of(settings: Settings, origin: Origin, info: ObjectInfo) -> list[str]:
    """The names of a workbook's sheets; errors as ``converted``, whose reading of one finds what is wrong with it."""
    memory_bytes = settings.workbook_memory_mb * 2**20
    wanted = Wanted("", None, None, 0, fill_merged=False, max_cells=0, memory_bytes=memory_bytes)
    with _reading(settings, origin, info, wanted, lambda: None) as lines:
        return msgspec.json.decode(b"".join(lines.pieces()), type=list[str])


def _names(table: Table | None, options: Options, max_columns: int) -> list[str] | None:
    if not isinstance(options.header, bool):
        return list(options.header)
    if options.header:
        return None
    by_number = [f"column_{number}" for number in range(1, max_columns + 1)]
    return by_number if options.mapping or table is None else list(table.column_names)


def _copy(origin: Origin, info: ObjectInfo, file: IO[bytes], go_on: Callable[[], None]) -> None:
    with closing(origin.open(info, 0)) as source:
        while piece := source.read(READ_BYTES):
            file.write(piece)
            go_on()
    file.flush()


class _Lines:
    """What the program writes."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes], memory_bytes: int) -> None:
        self._process = process
        self._said = said
        self._memory_bytes = memory_bytes

    @property
    def _output(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise RuntimeError("the program was started without a pipe")
        return self._process.stdout

    def pieces(self) -> Iterator[bytes]:
        """All of it; raises what the program ended of, unless it ended well."""
        while piece := self._output.read(READ_BYTES):
            yield piece
        self._check_end()

    def _check_end(self) -> None:
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


class Converted:
    """A sheet on its way to NDJSON."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._found = b""

    def pieces(self) -> Iterator[bytes]:
        """Its rows, a line each; raises as ``converted``."""
        for piece in self._lines.pieces():
            held = self._found + piece
            begin = held.rfind(b"\n", 0, -1) + 1
            self._found = held[begin:]
            if begin:
                yield held[:begin]

    @property
    def found(self) -> Found:
        """What was found; known once all pieces were."""
        return msgspec.json.decode(self._found, type=Found)


@contextmanager
def _reading(
    settings: Settings, origin: Origin, info: ObjectInfo, wanted: Wanted, go_on: Callable[[], None]
) -> Iterator[_Lines]:
    """The program at work on a copy of the file."""
    most = min(settings.max_workbook_bytes, settings.max_source_bytes)
    check_growth(origin, info, Limits(most, settings.max_compression_ratio))
    with tempfile.NamedTemporaryFile(prefix="haulier-", suffix=".xlsx") as file:
        _copy(origin, info, file, go_on)
        with _started(msgspec.structs.replace(wanted, path=file.name)) as lines:
            yield lines


@contextmanager
def _started(wanted: Wanted) -> Iterator[_Lines]:
    command = [sys.executable, "-m", "app.dataplane.sheet_reader", msgspec.json.encode(wanted).decode()]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process,  # noqa: S603 - our own program, no shell
    ):
        try:
            yield _Lines(process, said, wanted.memory_bytes)
        finally:
            process.kill()


def seen_of(found: Found) -> dict[str, Any]:
    """What the job's result tells of it."""
    return {"format": "xlsx", "sheet": found.sheet, "columns": found.width}
