"""Records of JSON, an object a line or the elements of one array, streamed in columns with their byte ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

from app.dataplane.chunks import Chunk
from app.dataplane.faults import Fault
from app.dataplane.json_values import SCAN, Shape, decoded_one, names_of
from app.domain.errors import JobError

BLOCK_BYTES: Final = 64 * 1024
_FILL_BYTES: Final = 1 << 20
_FIELDS_A_RECORD: Final = 2
_FEWEST_PARTED: Final = 2
_BLANK: Final = b" \t\r\n"
_GAP: Final = re.compile(r"[ \t\r\n]*(,?)[ \t\r\n]*")


class _Separated(Chunk):
    """A chunk whose records begin with what parts them from the one before."""

    def byte_of(self, place: int) -> int:
        """Where a record begins in the file; found by the scanner when first asked for."""
        if self.bounds is None:
            text = self.data.decode()
            self.bounds = [0, *_byte_places(text, _stops(text))]
        return Chunk.byte_of(self, place)

    def raw(self, place: int) -> bytes:
        """The element alone."""
        return Chunk.raw(self, place).lstrip(b", \t\r\n")


class _Window:
    """The bytes of a source that are at hand.

    Args:
        read: Gives at most so many bytes, ``b""`` at the end.
        first_byte: Where the first byte stands in the file; ``first_line`` the number of its record.
    """

    _kind: type[Chunk] = Chunk

    def __init__(
        self,
        read: Callable[[int], bytes],
        shape: Shape,
        *,
        first_byte: int = 0,
        first_line: int = 1,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._read = read
        self._shape = shape
        self._max_record_bytes = _FIELDS_A_RECORD * shape.max_field_bytes
        self._block_bytes = block_bytes
        self._buffer = b""
        self._begin = 0
        self._ended = False
        self.next_byte = first_byte
        self.next_line = first_line

    @property
    def _held(self) -> int:
        return len(self._buffer) - self._begin

    def _fill(self, least: int) -> None:
        """Hold at least ``least`` bytes, or all there are."""
        while self._held < least and not self._ended:
            data = self._read(_FILL_BYTES)
            self._ended = not data
            self._buffer = self._buffer[self._begin :] + data
            self._begin = 0

    def _take(self, length: int) -> None:
        self._begin += length
        self.next_byte += length

    def _chunk(self, data: bytes, ends: list[int] | None, count: int | None = None) -> Chunk:
        """The records that end at ``ends``, with nothing in them yet; ``count`` of them when that is for later."""
        count = len(ends or ()) if count is None else count
        return self._kind(
            data=data,
            first_byte=self.next_byte,
            first_line=self.next_line,
            count=count,
            columns=[[] for _ in self._shape.names],
            members=(),
            faults={},
            blanks=[],
            lines=count,
            bounds=None if ends is None else [0, *ends],
            length=len(data),
        )

    def _pass(self, chunk: Chunk) -> Chunk:
        self._take(chunk.length)
        self.next_line += chunk.lines
        return chunk


class LineReader(_Window):
    """Reads a file of one JSON object a line (NDJSON), from a byte that begins a line."""

    def header(self) -> tuple[str, ...]:
        """The keys of the first records; reads none of them away."""
        block = self._block()
        lines = [] if block is None else block.split(b"\n")
        return names_of([value for line in lines if not isinstance(value := value_of(line), Fault)])

    def chunks(self, _width: int) -> Iterator[Chunk]:
        """The records from here on."""
        while (block := self._block()) != b"":
            yield self._overlong() if block is None else self._pass(self._records(block))

    def _block(self) -> bytes | None:
        """Whole lines from here on; ``None`` when the next one is too long."""
        wanted = self._block_bytes
        while True:
            self._fill(wanted)
            if self._ended and self._held <= wanted:
                cut = len(self._buffer)
            else:
                cut = self._buffer.rfind(b"\n", self._begin, self._begin + wanted) + 1
            if cut > self._begin:
                return self._buffer[self._begin : cut]
            if self._ended and not self._held:
                return b""
            if wanted > self._max_record_bytes:
                return None
            wanted += self._max_record_bytes

    def _overlong(self) -> Chunk:
        """Read past a line that is longer than a record may be."""
        chunk = self._chunk(b"", [0])
        while (at := self._buffer.find(b"\n", self._begin)) < 0 and not self._ended:
            self._take(self._held)
            self._fill(1)
        self._take(at + 1 - self._begin if at >= 0 else self._held)
        self.next_line += 1
        chunk.length = self.next_byte - chunk.first_byte
        message = f"a record has at most {self._max_record_bytes} bytes, this one has {chunk.length}"
        chunk.faults = {0: Fault("json.record_too_long", message)}
        return chunk

    def _records(self, block: bytes) -> Chunk:
        lines = block.split(b"\n")
        if not lines[-1]:
            del lines[-1]
        ends = list(accumulate(len(line) + 1 for line in lines))
        ends[-1] = len(block)
        chunk = self._chunk(block, ends)
        if not self._fill_quickly(chunk, lines):
            self._one_by_one(chunk, lines)
        return chunk

    def _fill_quickly(self, chunk: Chunk, lines: list[bytes]) -> bool:
        rows = self._shape.quick.lines(chunk.data, lines)
        if None not in rows:
            return self._shape.fill(chunk, range(len(lines)), rows)
        faults, blanks = {}, []
        for place in [place for place, row in enumerate(rows) if row is None]:
            row = self._row(lines[place])
            if isinstance(row, Fault):
                faults[place] = row
            elif row is None:
                blanks.append(place)
            else:
                rows[place] = self._shape.quick.row(row)
        places = [place for place, row in enumerate(rows) if row is not None]
        if not self._shape.fill(chunk, places, [row for row in rows if row is not None]):
            return False
        chunk.faults, chunk.blanks = faults, blanks
        return True

    def _one_by_one(self, chunk: Chunk, lines: list[bytes]) -> None:
        rows = [(place, self._row(line)) for place, line in enumerate(lines)]
        chunk.blanks = [place for place, row in rows if row is None]
        self._shape.fill_slowly(chunk, [(place, row) for place, row in rows if row is not None])

    def _row(self, line: bytes) -> list[str | None] | Fault | None:
        """A line's texts, or the fault in it; ``None`` of a blank one."""
        if not line.strip(_BLANK):
            return None
        value = value_of(line)
        return value if isinstance(value, Fault) else self._shape.row(value)


def value_of(line: bytes) -> Any:
    """The value of a line, or the fault in it."""
    try:
        return decoded_one(line.decode().strip(" \t\r\n"))
    except UnicodeDecodeError as error:
        return Fault(
            "json.encoding",
            f"expected UTF-8, got the byte {line[error.start]:#04x} at {error.start} bytes into the record",
        )
    except ValueError as error:
        return Fault("json.invalid", f"expected a JSON object in one line: {error}")


class ArrayReader(_Window):
    """Reads one JSON array of objects, from its start or from the byte after an element.

    A record's line is its place in the array, counted from 1; its bytes begin after the element before it. What breaks
    the array breaks all that follows, so it ends the job and not only a record.
    """

    _kind = _Separated
    _gap: bytes | None = None
    """What stood before the last element that was read: what parts the next ones, too, as a rule."""

    def header(self) -> tuple[str, ...]:
        """The keys of the first elements; reads the bracket before them, and none of them."""
        self._fill(self._block_bytes)
        lead = len(self._buffer) - len(self._buffer.lstrip(_BLANK))
        if self._buffer[lead : lead + 1] != b"[":
            raise self._broken("expected [, which begins an array", lead)
        self._take(lead + 1)
        values, _, _ = self._elements(first=True)
        return names_of(values)

    def chunks(self, _width: int) -> Iterator[Chunk]:
        """The records from here on."""
        while True:
            if (chunk := self._quickly()) is not None:
                yield self._pass(chunk)
                continue
            values, ends, at_end = self._elements(first=self.next_line == 1)
            if values:
                chunk = self._chunk(self._buffer[self._begin : self._begin + ends[-1]], ends)
                self._shape.fill_slowly(chunk, list(enumerate(map(self._shape.row, values))))
                self._gap = _gap_before_last(chunk)
                yield self._pass(chunk)
            if at_end:
                return

    def _quickly(self) -> Chunk | None:
        """The next elements by one call on all of them; ``None`` when that cannot be, or would not be exact.

        A part of an array that is a whole one between brackets is whole elements: a parser that met the bracket at
        its end was in no text and in no value.
        """
        gap = self._gap
        if gap is None:
            return None
        self._fill(self._block_bytes)
        cut = self._buffer.rfind(b"}" + gap + b"{", self._begin, self._begin + self._block_bytes) + 1
        data = self._buffer[self._begin : cut]
        if not data.startswith(gap + b"{"):
            return None
        rows = self._shape.quick.array(b"[" + data[len(gap) :] + b"]")
        if rows is None:
            return None
        chunk = self._chunk(data, None, len(rows))
        return chunk if self._shape.fill(chunk, range(len(rows)), rows) else None

    def _elements(self, *, first: bool) -> tuple[list[Any], list[int], bool]:
        """The next values, where each ends, and whether the array does."""
        wanted = self._block_bytes
        while True:
            self._fill(wanted)
            text = self._text(wanted)
            values, stops, at_end = self._scan(text, first=first)
            if values or at_end:
                return values, _byte_places(text, stops), at_end
            if self._ended and self._held <= wanted:
                raise self._broken("expected a value and then , or ], got the end or what is no value", 0)
            if wanted > self._max_record_bytes:
                raise self._broken(f"expected a whole value within {self._max_record_bytes} bytes", 0)
            wanted += self._max_record_bytes

    def _text(self, wanted: int) -> str:
        data = self._buffer[self._begin : self._begin + wanted]
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            if error.start < len(data) - 3 or (self._ended and self._held <= wanted):
                raise self._broken(f"expected UTF-8, got the byte {data[error.start]:#04x}", error.start) from None
            return data[: error.start].decode()

    def _scan(self, text: str, *, first: bool) -> tuple[list[Any], list[int], bool]:
        values: list[Any] = []
        stops: list[int] = []
        at, size = 0, len(text)
        while gap := _GAP.match(text, at):
            begin = gap.end()
            if begin < size and text[begin] == "]" and not gap.group(1):
                self._check_trailer(text, begin + 1)
                return values, stops, True
            if begin >= size or bool(gap.group(1)) == (first and not values):
                break
            try:
                value, at = SCAN(text, begin)
            except (StopIteration, ValueError, RecursionError):
                break
            if at == size and not isinstance(value, dict):
                break  # a number may go on
            values.append(value)
            stops.append(at)
        return values, stops, False

    def _check_trailer(self, text: str, at: int) -> None:
        """Nothing but blanks may follow the array."""
        place = len(text[:at].encode())
        while True:
            rest = self._buffer[self._begin + place :].strip(_BLANK)
            if rest:
                raise self._broken("expected the end of the file after the array", place)
            if self._ended:
                return
            self._fill(self._held + 1)

    def _broken(self, reason: str, offset: int) -> JobError:
        return JobError(
            f"the JSON array is broken at byte {self.next_byte + offset}, near element {self.next_line}: {reason}",
            code="json.invalid",
            hint="Rows of the batches before it stay loaded. An object a line (NDJSON) loses only the broken lines.",
            data={"byte": self.next_byte + offset, "element": self.next_line},
        )


def _gap_before_last(chunk: Chunk) -> bytes | None:
    """What parts the last record of a chunk from the one before."""
    if chunk.count < _FEWEST_PARTED:
        return None
    element = chunk.raw(chunk.count - 1)
    with_gap = Chunk.raw(chunk, chunk.count - 1)
    return with_gap[: len(with_gap) - len(element)]


def _stops(text: str) -> list[int]:
    """Where each of the elements ends that ``text`` consists of."""
    stops, at = [], 0
    while at < len(text):
        gap = _GAP.match(text, at)
        _, at = SCAN(text, gap.end() if gap else at)
        stops.append(at)
    return stops


def _byte_places(text: str, stops: list[int]) -> list[int]:
    if text.isascii():
        return stops
    begins = [0, *stops[:-1]]
    return list(accumulate(len(text[begin:end].encode()) for begin, end in zip(begins, stops, strict=True)))
