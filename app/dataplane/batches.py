"""From chunks of records to batches, and from a batch to what each lane writes: rows coerced, routed and encoded."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from typing import Final
from uuid import UUID
from zlib import crc32

from app.dataplane.coercion import canonical, coerce_column, escaped
from app.dataplane.faults import Fault
from app.dataplane.plan import Plan
from app.dataplane.records import Chunk
from app.domain.tables import ColumnType, Table

KEY_NAMESPACE: Final = UUID("7b1f6c0e-5d3a-5c8e-9a41-2f0f5e6d7c8b")
"""Of generated keys: UUID5 in this namespace over the named columns' values, joined by the unit separator U+001F."""
_KEY_SEPARATOR: Final = b"\x1f"
_ALWAYS_ESCAPED: Final = frozenset({ColumnType.TEXT_ARRAY, ColumnType.JSON})


@dataclass(slots=True)
class Batch:
    """``count`` consecutive records of a file.

    Args:
        number: Counts from 0 over the file.
        columns: As in ``Chunk``, for the records of the whole batch.
        members: For each good record its place in the batch.
        pieces: Where the records stand: place of the piece's first record in the batch, chunk, its place there.
        refused_before: Records refused by the reader in the batches before.
        stored_bytes_read: How far the stored object was read when the batch was full.
    """

    number: int
    count: int = 0
    columns: list[list[bytes]] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)
    blanks: int = 0
    pieces: list[tuple[int, Chunk, int]] = field(default_factory=list)
    plain: bool = True
    refused_before: int = 0
    stored_bytes_read: int = 0

    def add(self, chunk: Chunk, begin: int, end: int) -> None:
        """Append the records ``begin`` to ``end`` of ``chunk``."""
        shift = self.count - begin
        first, last = chunk.members_before(begin), chunk.members_before(end)
        if not self.columns:
            self.columns = [column[first:last] for column in chunk.columns]
        else:
            for mine, more in zip(self.columns, chunk.columns, strict=False):  # an over-long line has no columns
                mine.extend(more if len(more) == last - first else more[first:last])
        self.members += [place + shift for place in chunk.members[first:last]]
        self.faults.update({place + shift: fault for place, fault in chunk.faults.items() if begin <= place < end})
        self.blanks += sum(begin <= place < end for place in chunk.blanks)
        self.plain = self.plain and chunk.plain
        self.pieces.append((self.count, chunk, begin))
        self.count += end - begin

    def _locate(self, place: int) -> tuple[Chunk, int]:
        at = bisect_right(self.pieces, place, key=lambda piece: piece[0]) - 1
        begin, chunk, offset = self.pieces[at]
        return chunk, place - begin + offset

    def line_of(self, place: int) -> int:
        """The first physical line of a record."""
        chunk, local = self._locate(place)
        return chunk.line_of(local)

    def bytes_of(self, place: int) -> tuple[int, int]:
        """Where a record begins and where the next one does."""
        chunk, local = self._locate(place)
        return chunk.byte_of(local), chunk.byte_of(local + 1)

    def raw(self, place: int) -> bytes:
        """A record as it stands in the file."""
        chunk, local = self._locate(place)
        return chunk.raw(local)

    @property
    def first_line(self) -> int:
        """The line of the first record."""
        return self.line_of(0)

    @property
    def last_line(self) -> int:
        """The last line of the last record."""
        chunk, local = self._locate(self.count - 1)
        return chunk.line_of(local + 1) - 1

    @property
    def first_byte(self) -> int:
        """Where the first record begins."""
        return self.bytes_of(0)[0]

    @property
    def end_byte(self) -> int:
        """Where the record after the last begins, or the file ends."""
        return self.bytes_of(self.count - 1)[1]


def in_batches(chunks: Iterable[Chunk], batch_rows: int, *, first: int = 0) -> Iterator[Batch]:
    """Cut a file's records into batches of ``batch_rows``; the last may be smaller."""
    batch = Batch(first)
    for chunk in chunks:
        begin = 0
        while begin < chunk.count:
            end = min(chunk.count, begin + batch_rows - batch.count)
            batch.add(chunk, begin, end)
            begin = end
            if batch.count == batch_rows:
                yield batch
                batch = Batch(batch.number + 1)
        chunk.columns = []  # the batches have their copies, and keep the chunk only for its bytes
    if batch.count:
        yield batch


@dataclass(slots=True)
class Part:
    """What one lane writes of one batch.

    Args:
        rows: Encoded for COPY's text format without their line ends: the plan's columns (the key first when it is
            generated), then the record's place in the batch.
        places: The place of each row.
        distinct: No key stands twice among them, for sure.
        faults: The refused records of the batch, by place; the first lane writes them all.
        blanks: The blank lines of the batch; the first lane counts them all.
    """

    batch: Batch
    lane: int
    rows: list[bytes]
    places: list[int]
    distinct: bool
    faults: dict[int, Fault] = field(default_factory=dict)
    blanks: int = 0

    @property
    def count(self) -> int:
        """Records of the file that this part accounts for."""
        return len(self.rows) + len(self.faults) + self.blanks


class Preparer:
    """Makes the parts of batches under one plan."""

    def __init__(self, plan: Plan, table: Table) -> None:
        self._plan = plan
        self._table = table
        self._columns = [column for name in plan.columns if (column := table.column(name))]
        makes_column = plan.generates_key and table.key[0] not in plan.columns
        self.columns = ((table.key[0],) if makes_column else ()) + plan.columns

    def parts(self, batch: Batch) -> list[Part]:
        """One part a lane; the batch gives up its columns."""
        values = self._coerced(batch)
        rows, keys, distinguishable = self._encode(batch, values)
        parts = self._route(batch, rows, keys, distinguishable)
        parts[0].faults, parts[0].blanks = batch.faults, batch.blanks
        batch.columns, batch.members = [], []
        return parts

    def _coerced(self, batch: Batch) -> dict[str, list[bytes]]:
        """The plan's columns, coerced, without the rows that are refused; these join the batch's faults."""
        values: dict[str, list[bytes]] = {}
        faults: dict[int, Fault] = {}
        for column, position in zip(self._columns, self._plan.positions, strict=True):
            required = column.required or (column.name in self._table.key and not self._plan.generates_key)
            source = batch.columns[position] if batch.columns else []
            values[column.name], found = coerce_column(source, column, required=required)
            for place, fault in found.items():
                faults.setdefault(place, fault)
        if self._plan.generates_key:
            self._generate_keys(values, len(batch.members), faults)
        if faults:
            keep = [place not in faults for place in range(len(batch.members))]
            values = {name: list(compress(column, keep)) for name, column in values.items()}
            batch.faults.update({batch.members[place]: fault for place, fault in faults.items()})
            batch.members = list(compress(batch.members, keep))
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

    def _encode(self, batch: Batch, values: dict[str, list[bytes]]) -> tuple[list[bytes], list[bytes] | None, bool]:
        """Rows for COPY, the keys that route them, and whether different keys mean different rows for Postgres."""
        keys, distinguishable = self._keys(values)
        columns: list[Sequence[bytes]] = []
        for name in self.columns:
            column = self._table.column(name)
            always = column is not None and column.type in _ALWAYS_ESCAPED
            columns.append(escaped(values[name]) if values[name] and (always or not batch.plain) else values[name])
        places = [b"%d" % place for place in batch.members]
        return list(map(b"\t".join, zip(*columns, places, strict=True))), keys, distinguishable

    def _keys(self, values: dict[str, list[bytes]]) -> tuple[list[bytes] | None, bool]:
        parts = []
        distinguishable = True
        for name in self._table.key:
            column = self._table.column(name)
            known = canonical(values[name], column.type) if column else None
            distinguishable = distinguishable and known is not None
            if known is not None:
                parts.append(known)
        if len(parts) == 1:
            return parts[0], distinguishable
        return (list(map(_KEY_SEPARATOR.join, zip(*parts, strict=True))) if parts else None), distinguishable

    def _route(self, batch: Batch, rows: list[bytes], keys: list[bytes] | None, distinguishable: bool) -> list[Part]:
        lanes = self._plan.lanes
        if keys is None or lanes == 1:
            distinct = keys is not None and distinguishable and len(set(keys)) == len(keys)
            whole = Part(batch, 0, rows, batch.members, distinct)
            return [whole, *(Part(batch, lane, [], [], True) for lane in range(1, lanes))]
        lane_of = [checksum % lanes for checksum in map(crc32, keys)]
        parts = []
        for lane in range(lanes):
            mine = [its == lane for its in lane_of]
            own = list(compress(keys, mine))
            distinct = distinguishable and len(set(own)) == len(own)
            parts.append(Part(batch, lane, list(compress(rows, mine)), list(compress(batch.members, mine)), distinct))
        return parts


def generated_key(parts: Iterable[bytes]) -> bytes:
    """The UUID5 of a row whose file brings no key, over the UTF-8 values of the table's ``generated_key`` columns."""
    digest = bytearray(hashlib.sha1(KEY_NAMESPACE.bytes + _KEY_SEPARATOR.join(parts), usedforsecurity=False).digest())
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    return str(UUID(bytes=bytes(digest[:16]))).encode()
