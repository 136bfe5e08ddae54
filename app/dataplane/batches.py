"""From chunks of records to rows for COPY, from these to batches, and from a batch to what each lane writes."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from typing import Final, TypeVar
from uuid import UUID
from zlib import crc32

from app.dataplane.chunks import NULL, Chunk
from app.dataplane.coercion import canonical, coerce_column, escaped
from app.dataplane.companions import Companions
from app.dataplane.faults import Fault
from app.dataplane.plan import Mapped
from app.domain.tables import ColumnType, Table

KEY_NAMESPACE: Final = UUID("7b1f6c0e-5d3a-5c8e-9a41-2f0f5e6d7c8b")
"""Of generated keys: UUID5 in this namespace over the named columns' values, joined by the unit separator U+001F."""
NULL_WRITTEN: Final = b"\\N"
_Value = TypeVar("_Value")
_KEY_SEPARATOR: Final = b"\x1f"
_ALWAYS_ESCAPED: Final = frozenset({ColumnType.TEXT_ARRAY, ColumnType.JSON})


@dataclass(slots=True)
class Encoded:
    """A chunk's good records as COPY takes them.

    Args:
        rows: For COPY's text format, without line ends: the plan's columns, the key first when the file has no field
            for it.
        keys: What each row is known by, equal exactly when Postgres finds the keys equal; ``None`` when we cannot tell.
        members: For each row its place in the chunk.
        companions: For each row the one beside it, its key first, or nothing; empty when none are wanted.
        faults: The refused records by place, those of the chunk among them.
    """

    chunk: Chunk
    rows: list[bytes]
    keys: list[bytes] | None
    members: Sequence[int]
    companions: list[bytes]
    faults: dict[int, Fault]


@dataclass(slots=True)
class Batch:
    """``count`` consecutive records of a file.

    Args:
        number: Counts from 0 over the file.
        rows: As in ``Encoded``, for the whole batch; ``keys``, ``members`` and ``companions`` likewise, with places in
            the batch.
        pieces: Where the records stand: place of the piece's first record in the batch, chunk, its place there.
        refused_before: Records refused by the reader in the batches before.
        stored_bytes_read: How far the stored object was read when the batch was full.
    """

    number: int
    count: int = 0
    rows: list[bytes] = field(default_factory=list)
    keys: list[bytes] | None = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    companions: list[bytes] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)
    blanks: int = 0
    pieces: list[tuple[int, Chunk, int]] = field(default_factory=list)
    refused_before: int = 0
    stored_bytes_read: int = 0

    def add(self, encoded: Encoded, begin: int, end: int) -> None:
        """Append the records ``begin`` to ``end`` of a chunk."""
        chunk, shift = encoded.chunk, self.count - begin
        first, last = bisect_left(encoded.members, begin), bisect_left(encoded.members, end)
        self.rows += encoded.rows[first:last]
        self.companions += encoded.companions[first:last]
        if encoded.keys is None:
            self.keys = None
        elif self.keys is not None:
            self.keys += encoded.keys[first:last]
        self.members += [place + shift for place in encoded.members[first:last]]
        self.faults.update({place + shift: fault for place, fault in encoded.faults.items() if begin <= place < end})
        self.blanks += sum(begin <= place < end for place in chunk.blanks)
        self.pieces.append((self.count, chunk, begin))
        self.count += end - begin

    def locate(self, place: int) -> tuple[Chunk, int]:
        """The chunk of a record, and its place there."""
        at = bisect_right(self.pieces, place, key=lambda piece: piece[0]) - 1
        begin, chunk, offset = self.pieces[at]
        return chunk, place - begin + offset

    def line_of(self, place: int) -> int:
        """The first physical line of a record."""
        chunk, local = self.locate(place)
        return chunk.line_of(local)

    def bytes_of(self, place: int) -> tuple[int, int]:
        """Where a record begins and where the next one does."""
        chunk, local = self.locate(place)
        return chunk.byte_of(local), chunk.byte_of(local + 1)

    def raw(self, place: int) -> bytes:
        """A record as it stands in the file."""
        chunk, local = self.locate(place)
        return chunk.raw(local)

    @property
    def first_line(self) -> int:
        """The line of the first record."""
        return self.line_of(0)

    @property
    def last_line(self) -> int:
        """The last line of the last record."""
        chunk, local = self.locate(self.count - 1)
        return chunk.line_of(local + 1) - 1

    @property
    def first_byte(self) -> int:
        """Where the first record begins."""
        return self.bytes_of(0)[0]

    @property
    def end_byte(self) -> int:
        """Where the record after the last begins, or the file ends."""
        return self.bytes_of(self.count - 1)[1]


def in_batches(encoded: Iterable[Encoded], *, batch_rows: int, batch_bytes: int, first: int = 0) -> Iterator[Batch]:
    """Cut a file's records into batches of ``batch_rows``, or less where a record is the one to fill ``batch_bytes``.

    Where a batch begins decides where it ends: whoever begins there again cuts as before.
    """
    batch, full_at = Batch(first), 0
    for piece in encoded:
        chunk, begin = piece.chunk, 0
        while begin < chunk.count:
            if not batch.count:
                full_at = chunk.byte_of(begin) + batch_bytes
            end = _first_from(full_at, chunk, begin + 1, min(chunk.count, begin + batch_rows - batch.count))
            batch.add(piece, begin, end)
            begin = end
            if batch.count == batch_rows or chunk.byte_of(end) >= full_at:
                yield batch
                batch = Batch(batch.number + 1)
    if batch.count:
        yield batch


def _first_from(byte: int, chunk: Chunk, low: int, high: int) -> int:
    """The first record that begins there or later, ``high`` when none before it does."""
    if chunk.byte_of(high) < byte:
        return high
    return low + bisect_left(range(low, high), byte, key=chunk.byte_of)


@dataclass(slots=True)
class Part:
    """What one lane writes of one batch.

    Args:
        rows: As in ``Encoded``; ``companions`` likewise.
        places: The place of each row in the batch.
        distinct: No key stands twice among them, for sure.
        faults: The refused records of the batch, by place; one lane writes them all, each batch's in turn.
        blanks: The blank lines of the batch; the same lane counts them all.
    """

    batch: Batch
    lane: int
    rows: list[bytes]
    places: list[int]
    distinct: bool
    companions: list[bytes] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)
    blanks: int = 0

    @property
    def count(self) -> int:
        """Records of the file that this part accounts for."""
        return len(self.rows) + len(self.faults) + self.blanks


def parts_of(batch: Batch, lanes: int) -> list[Part]:
    """One part a lane: a row goes to the lane of its key's hash. The batch gives up its rows."""
    rows, keys, places, companions = batch.rows, batch.keys, batch.members, batch.companions
    batch.rows, batch.keys, batch.members, batch.companions = [], [], [], []
    if keys is None or lanes == 1:
        parts = [Part(batch, 0, rows, places, keys is not None and len(set(keys)) == len(keys), companions)]
        parts += [Part(batch, lane, [], [], True) for lane in range(1, lanes)]
    else:
        lane_of = [checksum % lanes for checksum in map(crc32, keys)]
        parts = []
        for lane in range(lanes):
            mine = [its == lane for its in lane_of]
            own = list(compress(keys, mine))
            distinct = len(set(own)) == len(own)
            beside = list(compress(companions, mine))
            parts.append(Part(batch, lane, list(compress(rows, mine)), list(compress(places, mine)), distinct, beside))
    chosen = parts[batch.number % lanes]
    chosen.faults, chosen.blanks = batch.faults, batch.blanks
    return parts


class Encoder:
    """Coerces and encodes records whose fields go to columns as ``mapped`` says.

    Args:
        companions: What comes beside the rows; needed when ``mapped`` has columns of it.
        keeps_empty: Empty text is a text; NULL comes as ``chunks.NULL`` and is written as ``NULL_WRITTEN``.
    """

    def __init__(
        self, mapped: Mapped, table: Table, companions: Companions | None = None, *, keeps_empty: bool = False
    ) -> None:
        self._mapped = mapped
        self._keeps_empty = keeps_empty
        self._table = table
        self._columns = [column for name in mapped.columns if (column := table.column(name))]
        makes_column = mapped.generates_key and table.key[0] not in mapped.columns
        self._beside = companions if mapped.companion_columns else None
        self._beside_columns = [
            column for name in mapped.companion_columns if companions and (column := companions.column(name))
        ]
        link = (self._beside.relation.column,) if self._beside else ()
        self.columns = (
            ((table.key[0],) if makes_column else ())
            + mapped.columns
            + tuple(name for name in link if name not in mapped.columns)
        )
        self._always_escaped = {
            column.name for column in (*self._columns, *self._beside_columns) if column.type in _ALWAYS_ESCAPED
        }

    @property
    def companion_columns(self) -> tuple[str, ...]:
        """The columns of an encoded companion, as its table calls them; empty when there are none."""
        if self._beside is None:
            return ()
        return (
            self._beside.relation.key,
            *(self._beside.columns[name].name for name in self._mapped.companion_columns),
        )

    def encode(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Each chunk's rows; the chunk gives up its columns and stays for its bytes."""
        for chunk in chunks:
            yield self.encode_one(chunk)
            chunk.columns, chunk.members = [], ()

    def encode_one(self, chunk: Chunk) -> Encoded:
        """A chunk's rows; the refused ones join its faults."""
        faults: dict[int, Fault] = {}
        nulls = self._without_nulls(chunk) if self._keeps_empty else {}
        values = self._coerced(chunk, faults)
        if self._keeps_empty:
            self._with_nulls(values, nulls)
        members = chunk.members
        if faults:
            refused = sorted(faults, reverse=True)
            chunk.faults.update({members[place]: fault for place, fault in faults.items()})
            values = {name: _without(refused, column) for name, column in values.items()}
            members = _without(refused, members)
        companions = [] if self._beside is None else self._companions(self._beside, values, plain=chunk.plain)
        rows = self._rows(self.columns, values, plain=chunk.plain)
        return Encoded(chunk, rows, self._keys(values), members, companions, chunk.faults)

    @staticmethod
    def _without_nulls(chunk: Chunk) -> dict[int, list[int]]:
        """The places of NULL in the chunk's columns, which get empty text there."""
        nulls = {}
        for position, column in enumerate(chunk.columns):
            if NULL in column:
                nulls[position] = [place for place, value in enumerate(column) if value == NULL]
                chunk.columns[position] = [b"" if value == NULL else value for value in column]
        return nulls

    def _with_nulls(self, values: dict[str, list[bytes]], nulls: Mapping[int, list[int]]) -> None:
        """Put NULL back, into columns of other types than text wherever nothing is."""
        for column, position in zip(self._columns, self._mapped.positions, strict=True):
            kept = list(values[column.name])
            of_text = column.type is ColumnType.TEXT
            for place in nulls.get(position, ()) if of_text else range(len(kept)):
                kept[place] = kept[place] or NULL
            values[column.name] = kept

    def _coerced(self, chunk: Chunk, faults: dict[int, Fault]) -> dict[str, list[bytes]]:
        """The mapped columns, coerced; refused rows join ``faults`` by their place among the good ones."""
        values: dict[str, list[bytes]] = {}
        columns = (*self._columns, *self._beside_columns)
        for column, position in zip(columns, (*self._mapped.positions, *self._mapped.companion_positions), strict=True):
            required = column.required or (column.name in self._table.key and not self._mapped.generates_key)
            source = chunk.columns[position] if chunk.columns else []  # an over-long line has none
            values[column.name], found = coerce_column(source, column, required=required)
            for place, fault in found.items():
                faults.setdefault(place, fault)
        if self._mapped.generates_key:
            self._generate_keys(values, len(chunk.members), faults)
        return values

    def _generate_keys(self, values: dict[str, list[bytes]], count: int, faults: dict[int, Fault]) -> None:
        name = self._table.key[0]
        keys = list(values.get(name) or repeat(b"", count))
        if b"" in keys:
            sources = [values.get(source) or [b""] * count for source in self._table.generated_key]
            for place, parts in enumerate(zip(*sources, strict=True)):
                if keys[place]:
                    continue
                if any(parts):
                    keys[place] = generated_key(parts)
                else:
                    names = ", ".join(self._table.generated_key)
                    message = f"{name} is required, got neither it nor a value of {names} to make it from"
                    faults.setdefault(place, Fault("value.required", message, name))
        values[name] = keys

    def _companions(self, beside: Companions, values: dict[str, list[bytes]], *, plain: bool) -> list[bytes]:
        """The row beside each, or nothing; the rows themselves get its key where they bring none."""
        relation = beside.relation
        made: dict[tuple[bytes, ...], bytes] = {}
        names = values[beside.name]
        # The key of a companion leads its row as 36 small letters, digits and hyphens: rows are compared by it.
        brought = canonical(values.get(relation.column) or [b""] * len(names), ColumnType.UUID) or []
        sources = [values.get(relation.prefix + name) or [b""] * len(names) for name in beside.table.generated_key]
        keys = []
        for name, key, parts in zip(names, brought, zip(*sources, strict=True), strict=True):
            if name and not key:
                if parts not in made:
                    made[parts] = generated_key(parts)
                key = made[parts]  # noqa: PLW2901 - the key that the file does not bring
            keys.append(key)
        values[relation.column] = keys
        rows = self._rows((relation.column, *self._mapped.companion_columns), values, plain=plain)
        return [row if name else b"" for name, row in zip(names, rows, strict=True)]

    def _rows(self, names: Sequence[str], values: dict[str, list[bytes]], *, plain: bool) -> list[bytes]:
        columns = [
            escaped(values[name]) if values[name] and (not plain or name in self._always_escaped) else values[name]
            for name in names
        ]
        if self._keeps_empty:
            columns = [[NULL_WRITTEN if value == NULL else value for value in column] for column in columns]
        return list(map(b"\t".join, zip(*columns, strict=True)))

    def _keys(self, values: dict[str, list[bytes]]) -> list[bytes] | None:
        parts = []
        for name in self._table.key:
            column = self._table.column(name)
            known = canonical(values[name], column.type) if column else None
            if known is None:
                return None
            parts.append(known)
        return parts[0] if len(parts) == 1 else list(map(_KEY_SEPARATOR.join, zip(*parts, strict=True)))


def _without(places: Sequence[int], values: Sequence[_Value]) -> list[_Value]:
    """``values`` but for those at ``places``, which go from the last to the first."""
    left = list(values)
    for place in places:
        del left[place]
    return left


def generated_key(parts: Iterable[bytes]) -> bytes:
    """The UUID5 of a row whose file brings no key, over the UTF-8 values of the table's ``generated_key`` columns."""
    digest = bytearray(hashlib.sha1(KEY_NAMESPACE.bytes + _KEY_SEPARATOR.join(parts), usedforsecurity=False).digest())
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    return str(UUID(bytes=bytes(digest[:16]))).encode()
