"""CSV records in columns, with their lines and byte ranges: RFC 4180, and a fault for every record that is not.

Blocks of whole lines are taken apart by a few calls on the whole block. That is exact only where every quote stands as
RFC 4180 has it; any other block goes record by record through the csv module. A property of the tests holds both to the
same answer.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from app.dataplane.chunks import Chunk, Encoding
from app.dataplane.faults import Fault
from app.dataplane.fields import FIELD_END, RECORD_END, fill, keep_of_width, ragged, take_apart
from app.domain.errors import JobError

BLOCK_BYTES: Final = 64 * 1024
_FILL_BYTES: Final = 1 << 20
_OTHER_ENCODING: Final = "Set encoding in the config to what the file is in: utf-8, latin-1 or utf-16."
_FIELDS_A_RECORD: Final = 2
"""A record may be this many times as long as the longest field."""


@dataclass(slots=True)
class _Block:
    """Whole lines on their way to a chunk: as stored, and in UTF-8 when that is something else."""

    data: bytes
    utf8: bytes
    bounds: list[int] | None
    suspect: bool


class RecordReader:
    """Reads a CSV file once, from a byte that begins a record.

    Args:
        read: Gives at most so many bytes of the file, ``b""`` at its end.
        delimiter: One ASCII character.
        max_field_bytes: Longer fields are refused; a record may be twice as long.
        first_byte: Where the first byte of ``read`` stands in the file; ``first_line`` the line it begins.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        encoding: Encoding = Encoding.UTF_8,
        delimiter: str = ",",
        max_field_bytes: int = 1_048_576,
        first_byte: int = 0,
        first_line: int = 1,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._read = read
        self._encoding = encoding
        self._delimiter = delimiter
        self._max_field_bytes = max_field_bytes
        self._max_record_bytes = _FIELDS_A_RECORD * max_field_bytes
        self._block_bytes = block_bytes
        self._buffer = b""
        self._begin = 0
        self._ended = False
        self.next_byte = first_byte
        self.next_line = first_line

    def header(self) -> list[str] | None:
        """The fields of the first record that is not blank; ``None`` when the file has none.

        Raises:
            JobError: ``csv.header_invalid``: it cannot be read.
        """
        held = 0
        while True:
            block = self._next_lines(held)
            if block is None:
                raise _bad_header(f"it is longer than {self._max_record_bytes} bytes")
            found = self._header_in(block, at_end=len(block) == held)
            if found is not None or len(block) == held:
                return found
            held = len(block)

    def skip_lines(self, count: int) -> None:
        """Read past so many physical lines, or to the end."""
        for _ in range(count):
            while not (found := self._line_end()) and not self._ended:
                self._fill()
            found = found or len(self._buffer) - self._begin
            self._take(found)
            self.next_line += found > 0

    def _header_in(self, block: bytes, *, at_end: bool) -> list[str] | None:
        errors = "surrogatepass" if self._encoding.is_wide else "surrogateescape"
        text = block[: len(block) & ~1 if self._encoding.is_wide else None].decode(self._encoding, errors)
        lines = list(io.StringIO(text, newline=""))
        _admit_long_fields()
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        try:
            row = next(filter(None, reader), None)
        except csv.Error as error:
            if at_end or len(block) > self._max_record_bytes:
                raise _bad_header(str(error)) from error
            return None
        if row is None:
            return None
        length = len("".join(lines[: reader.line_num]).encode(self._encoding, errors))
        self._refuse_no_text(block[:length])
        self._take(length)
        self.next_line += reader.line_num
        return row

    def _refuse_no_text(self, header: bytes) -> None:
        try:
            text = header.decode(self._encoding)
        except UnicodeDecodeError as error:
            what = f"the byte {header[error.start]:#04x} at {error.start} bytes into it"
        else:
            what = "a NUL character" if "\0" in text else ""
        if what:
            raise _bad_header(f"expected {self._encoding.value} text, got {what}", hint=_OTHER_ENCODING)

    def chunks(self, width: int) -> Iterator[Chunk]:
        """The records from here on; ``width`` is the number of fields a good one has."""
        carried = 0
        while True:
            data = self._next_lines(carried)
            if data is None:
                yield self._overlong_line()
                continue
            if not data:
                return
            block = self._decode(data)
            final = len(data) == carried or (self._ended and self._begin + len(data) == len(self._buffer))
            chunk = self._quick(block, width) or self._careful(block, width, final=final)
            carried = len(data) - chunk.length
            if chunk.count:
                self._take(chunk.length)
                self.next_line += chunk.lines
                yield chunk

    # From bytes to blocks of whole lines

    def _next_lines(self, beyond: int) -> bytes | None:
        """Whole lines from here on, more than ``beyond`` bytes.

        Exactly ``beyond`` when the file ends there or a line follows that is too long; ``None`` when that line is next.
        """
        wanted = max(self._block_bytes, 2 * beyond)
        while True:
            held = len(self._buffer) - self._begin
            if held <= wanted and not self._ended:  # what is held may end within a line
                self._fill()
                continue
            if held <= wanted:
                return self._buffer[self._begin :]
            cut = self._cut(self._begin + wanted) - self._begin
            if cut > beyond:
                return self._buffer[self._begin : self._begin + cut]
            if wanted > beyond + self._max_record_bytes:
                return self._buffer[self._begin : self._begin + beyond] if beyond else None
            wanted += self._max_record_bytes

    def _fill(self) -> None:
        data = self._read(_FILL_BYTES)
        self._ended = not data
        self._buffer = self._buffer[self._begin :] + data
        self._begin = 0

    def _take(self, length: int) -> None:
        self._begin += length
        self.next_byte += length

    def _cut(self, end: int) -> int:
        """Just after the last line end of the buffer before ``end``; 0 when there is none."""
        newline = "\n".encode(self._encoding)
        step = len(newline)
        at = self._buffer.rfind(newline, self._begin, end)
        while at >= 0 and (at - self._begin) % step:  # the second half of one character and the first of the next
            at = self._buffer.rfind(newline, self._begin, at + step - 1)
        if at < 0 and step == 1:  # lone CR; the last byte may be the first half of CR LF
            at = self._buffer.rfind(b"\r", self._begin, end - 1)
        return at + step if at >= 0 else 0

    def _overlong_line(self) -> Chunk:
        """Read past a line that is longer than a record may be."""
        first_byte, first_line = self.next_byte, self.next_line
        while not (found := self._line_end()) and not self._ended:
            self._take((len(self._buffer) - self._begin - 1) & ~1)  # keeps a CR whose LF may come next
            self._fill()
        self._take(found or len(self._buffer) - self._begin)
        self.next_line += 1
        length = self.next_byte - first_byte
        message = f"a record has at most {self._max_record_bytes} bytes, this one has {length}"
        faults = {0: Fault("csv.record_too_long", message)}
        return Chunk(b"", first_byte, first_line, 1, [], (), faults, [], 1, length=length)

    def _line_end(self) -> int:
        """How many bytes there are up to and with the next line end in the buffer; 0 when there is none."""
        newline = "\n".encode(self._encoding)
        at = self._buffer.find(newline, self._begin)
        while at >= 0 and (at - self._begin) % len(newline):
            at = self._buffer.find(newline, at + 1)
        lone = self._buffer.find(b"\r", self._begin, at if at >= 0 else None) if len(newline) == 1 else -1
        if lone >= 0 and lone + 1 not in (at, len(self._buffer)):
            return lone + 1 - self._begin
        return at + len(newline) - self._begin if at >= 0 else 0

    def _decode(self, data: bytes) -> _Block:
        """``data`` in UTF-8; bytes that are no characters stay as they are and make the block suspect."""
        if self._encoding is Encoding.UTF_8:
            return _Block(data, data, None, b"\0" in data or not _is_utf8(data))
        if self._encoding is Encoding.LATIN_1:
            return _Block(data, data.decode("latin-1").encode(), None, b"\0" in data)
        text = data[: len(data) & ~1].decode(self._encoding, "surrogatepass")
        if len(data) & 1:
            text += "\udc80"
        utf8 = text.encode("utf-8", "surrogatepass")
        lengths = [len(line.encode(self._encoding, "surrogatepass")) for line in io.StringIO(text, newline="")]
        lengths[-1] += len(data) - sum(lengths)
        return _Block(data, utf8, [0, *accumulate(lengths)], b"\0" in utf8 or not _is_utf8(utf8))

    # From blocks to chunks

    def _quick(self, block: _Block, width: int) -> Chunk | None:
        """The records of a block by a few calls on all of it; ``None`` when that would not be exact."""
        data = block.utf8
        if block.suspect or FIELD_END in data or RECORD_END in data:
            return None
        lines = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        if b"\r" in lines:
            return None
        if not lines.endswith(b"\n"):
            lines += b"\n"
        delimiter = self._delimiter.encode()
        taken_apart = take_apart(lines, delimiter)
        if taken_apart is None:
            return None
        count = taken_apart.count(RECORD_END)
        chunk = Chunk(
            data=block.data,
            first_byte=self.next_byte,
            first_line=self.next_line,
            count=count,
            columns=[],
            members=range(count),
            faults={},
            blanks=[],
            lines=count,
            bounds=block.bounds,
            length=len(block.data),
            plain=b"\\" not in taken_apart and b"\t" not in taken_apart,
        )
        if width == 1 or taken_apart.count(FIELD_END) != count * (width - 1) or not fill(chunk, taken_apart, width):
            keep_of_width(chunk, taken_apart, width)
        return self._within_limits(chunk)

    def _within_limits(self, chunk: Chunk) -> Chunk | None:
        """``chunk``, or ``None`` when a field may be over the limit: then each record is looked at."""
        if chunk.length <= self._max_field_bytes:
            return chunk
        if all(max(map(len, column), default=0) <= self._max_field_bytes for column in chunk.columns):
            return chunk
        return None

    def _careful(self, block: _Block, width: int, *, final: bool) -> Chunk:
        """The records of a block one by one; those after ``length`` bytes wait for more when the block ends in one."""
        text = block.utf8.decode("utf-8", "surrogatepass" if self._encoding.is_wide else "surrogateescape")
        lines = list(io.StringIO(text, newline=""))
        bounds = block.bounds or [0, *accumulate(map(len, block.data.splitlines(keepends=True)))]
        rows, starts, faults, taken = self._parse(lines, bounds, final=final)
        chunk = Chunk(
            data=block.data[: bounds[taken]],
            first_byte=self.next_byte,
            first_line=self.next_line,
            count=len(rows),
            columns=[],
            members=(),
            faults=faults,
            blanks=[place for place, row in enumerate(rows) if not row and place not in faults],
            lines=taken,
            starts=starts,
            bounds=bounds[: taken + 1],
            length=bounds[taken],
        )
        if block.suspect:
            self._refuse_bad_bytes(chunk, rows)
        self._refuse_by_shape(chunk, rows, width)
        members = [place for place, row in enumerate(rows) if row and place not in faults]
        chunk.members = members
        chunk.columns = [
            [value.encode() for value in column] for column in zip(*(rows[place] for place in members), strict=True)
        ] or [[] for _ in range(width)]
        return chunk

    def _parse(
        self, lines: list[str], bounds: list[int], *, final: bool
    ) -> tuple[list[list[str]], list[int], dict[int, Fault], int]:
        """Rows, their first lines, faults by row, and how many lines were taken."""
        _admit_long_fields()
        rows: list[list[str]] = []
        starts: list[int] = []
        faults: dict[int, Fault] = {}
        start = before = 0
        reader = self._csv_reader(lines, start)
        while start < len(lines):
            try:
                row = next(reader)
            except csv.Error as error:
                end = start + reader.line_num - before
                fits = bounds[end] - bounds[start] <= self._max_record_bytes
                if end == len(lines) and not final and fits:
                    break
                # Only the record's first line is given up: what follows may be sound.
                faults[len(rows)] = _fault_of(error, end - start, fits=fits)
                rows.append([])
                starts.append(start)
                start, before = start + 1, 0
                reader = self._csv_reader(lines, start)
                continue
            rows.append(row)
            starts.append(start)
            start, before = start + reader.line_num - before, reader.line_num
        return rows, starts, faults, start

    def _csv_reader(self, lines: list[str], start: int) -> Any:
        upcoming: Any = iter(lines)
        upcoming.__setstate__(start)  # an iterator from there on, without a copy of what is left
        return csv.reader(upcoming, delimiter=self._delimiter, strict=True)

    def _refuse_bad_bytes(self, chunk: Chunk, rows: list[list[str]]) -> None:
        for place in range(len(rows)):
            raw = chunk.raw(place)
            try:
                text = raw.decode(self._encoding)
            except UnicodeDecodeError as error:
                chunk.faults[place] = Fault(
                    "csv.encoding",
                    f"expected {self._encoding.value} text, got the byte {raw[error.start]:#04x} "
                    f"at {error.start} bytes into the record",
                )
                continue
            if "\0" in text:
                chunk.faults[place] = Fault("csv.nul", "expected text, got a NUL character, which no text may hold")

    def _refuse_by_shape(self, chunk: Chunk, rows: list[list[str]], width: int) -> None:
        for place, row in enumerate(rows):
            if not row or place in chunk.faults:
                continue
            if len(row) != width:
                chunk.faults[place] = ragged(width, len(row))
            elif chunk.byte_of(place + 1) - chunk.byte_of(place) > self._max_field_bytes:
                longest = max(len(value.encode()) for value in row)
                if longest > self._max_field_bytes:
                    chunk.faults[place] = Fault(
                        "csv.field_too_long",
                        f"a field has at most {self._max_field_bytes} bytes, the longest here has {longest}",
                    )


def _bad_header(reason: str, *, hint: str | None = None) -> JobError:
    return JobError(f"the header is not valid CSV: {reason}", code="csv.header_invalid", hint=hint)


def _fault_of(error: csv.Error, lines: int, *, fits: bool) -> Fault:
    if lines > 1 or not fits or "unexpected end" in str(error):
        return Fault("csv.unclosed_quote", f"a quoted field that begins in this line is not closed properly: {error}")
    return Fault("csv.quote", f"the quotes in this line do not fit together: {error}")


def _admit_long_fields() -> None:
    """Let the csv module pass fields of any length: the limit here is in bytes, and its own is the whole process's."""
    csv.field_size_limit(2**31 - 1)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
