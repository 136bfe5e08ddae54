"""How a file is read: found out by looking at it when the job is first claimed, and kept to from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol, cast

from app.dataplane import formats
from app.dataplane.chunks import Chunk, Encoding
from app.dataplane.companions import companions_of
from app.dataplane.compression import Compression, Limits, compression_of, first_bytes, is_workbook, unpacked
from app.dataplane.context import ImportContext
from app.dataplane.formats import Format
from app.dataplane.json_records import ArrayReader, LineReader
from app.dataplane.json_values import Shape
from app.dataplane.origins import Origin, S3Origin
from app.dataplane.plan import Columns, Mapped, Options, Plan, map_header, proposals_of
from app.dataplane.records import RecordReader
from app.dataplane.sources import ByteSource
from app.dataplane.spooling import UrlOrigin, spool_url
from app.domain.errors import JobError
from app.domain.ports import ObjectInfo, ObjectRef
from app.domain.tables import Table
from app.persistence.imports import Place
from config.settings import Settings

_Read = Callable[[int], bytes]


class Reader(Protocol):
    """Reads records from a byte that begins one."""

    next_byte: int
    next_line: int

    def chunks(self, width: int, /) -> Iterator[Chunk]:
        """The records from here on; ``width`` is the number of fields a good one has."""
        ...


def first_plan(context: ImportContext, origin: Origin | UrlOrigin, table: Table, options: Options) -> Plan:
    """What to do with a file; one that cannot be read at any place is copied first.

    Raises:
        JobError: As ``look``, or its header does not fit the table.
    """
    copy = copied(context, origin, options) if isinstance(origin, UrlOrigin) else None
    plan = look(context.settings, copy or cast("Origin", origin), table, options)
    return replace(
        plan,
        mapped=map_header(plan.names, table, options, max_columns=context.settings.max_columns),
        seen={**plan.seen, "mapping": proposed(plan, table, options)} if options.auto_map else plan.seen,
        fingerprint=options.fingerprint(origin.place, table.name),
        spool=(copy.ref.bucket, copy.ref.key) if copy else None,
    )


def proposed(plan: Plan, table: Table, options: Options) -> list[dict[str, Any]]:
    """What becomes of each field of a file, and how sure that is."""
    columns = Columns(table, companions_of(table) if options.companions else None)
    names = [name.strip() for name in plan.names]
    return [proposal.as_json() for proposal in proposals_of(names, columns, options)]


def copied(context: ImportContext, origin: UrlOrigin, options: Options) -> S3Origin:
    """Our own copy of a file that cannot be read at any place."""
    return S3Origin(context.objects, spool_url(context, origin, max_bytes=options.max_file_bytes))


def look(settings: Settings, origin: Origin, table: Table | None, options: Options) -> Plan:
    """How a file is to be read, by what is in it; nothing of it goes to any column yet.

    Args:
        table: Whose columns the fields of a file without a header are, in order.
    Raises:
        JobError: It is too large, or of another format than is wanted.
    """
    info = origin.info()
    _refuse_large(info, options)
    how = compression_of(origin, info) if options.compression == "auto" else Compression(options.compression)
    head = first_bytes(unpacked(origin, info, how, offset=0, limits=_limits(settings)), formats.HEAD_BYTES)
    kind = _format(origin, info, how, head, options)
    encoding, mark, certainty = formats.encoding_of(head, options.encoding if kind is Format.CSV else "utf-8")
    if kind is not Format.CSV and encoding is not Encoding.UTF_8:
        raise JobError(f"expected {kind} in utf-8, got {encoding}", code="json.encoding")
    delimiter = _delimiter(head[mark:], encoding, options)
    source = unpacked(origin, info, how, offset=mark, limits=_limits(settings))
    with closing(source):
        shape = Shape((), ignore_unknown=True, max_field_bytes=settings.max_field_bytes)
        place = Place(0, mark, 1, 0)
        begun = _Begun(
            _reader(kind, source.read, shape, encoding=encoding, delimiter=delimiter.value, place=place), options
        )
        names = begun.names(table)
    found: dict[str, Any] = {"encoding": encoding.value, "encoding_confidence": certainty}
    if kind is Format.CSV:
        found |= {"delimiter": delimiter.value, "delimiter_confidence": delimiter.confidence}
    return Plan(
        etag=info.etag,
        size_bytes=info.size_bytes,
        fingerprint="",
        compression=how,
        file_format=kind,
        delimiter=delimiter.value,
        encoding=encoding,
        first_byte=begun.first_byte,
        first_line=begun.first_line,
        names=tuple(names),
        mapped=Mapped((), (), generates_key=False),
        batch_rows=options.batch_rows or settings.batch_rows,
        # Of a batch that one of two lanes has committed, the other must write just what it would have written then.
        lanes=1 if options.shaping.may_differ else options.lanes or settings.lanes,
        max_field_bytes=settings.max_field_bytes,
        seen={"format": kind.value, "compression": how.value, **found} if options.tells_file else {},
    )


class _Begun:
    """A file up to its first record.

    Args:
        reader: It begins behind the byte order mark.
    """

    def __init__(self, reader: RecordReader | LineReader | ArrayReader, options: Options) -> None:
        self._reader = reader
        self._options = options
        self._stand()

    def names(self, table: Table | None) -> Sequence[str]:
        """The fields of a record; ``first_byte`` and ``first_line`` are the first record's from then on."""
        header = self._options.header
        if not isinstance(self._reader, RecordReader):
            found = self._reader.header()
            self._stand()
            return found if isinstance(header, bool) else header
        self._reader.skip_lines(self._options.skip_rows)
        self._stand()
        if not isinstance(header, bool):
            return header
        fields = self._reader.header()
        if fields is None:
            raise JobError("the file is empty: expected a header line", code="csv.empty")
        if not header:
            return _by_position(len(fields), table, self._options)
        self._stand()
        return fields

    def _stand(self) -> None:
        self.first_byte, self.first_line = self._reader.next_byte, self._reader.next_line


def _by_position(width: int, table: Table | None, options: Options) -> Sequence[str]:
    """Names for the fields of a file without a header: the table's columns in order, unless a mapping is given."""
    if options.mapping or table is None:
        return [f"column_{number}" for number in range(1, width + 1)]
    if width > len(table.column_names):
        raise JobError(
            f"the records have {width} fields, table {table.name!r} has {len(table.column_names)} columns",
            code="csv.too_many_columns",
            hint="Give header as a list of names, or a mapping of column_1, column_2 and so on.",
        )
    return table.column_names[:width]


def _refuse_large(info: ObjectInfo, options: Options) -> None:
    if options.max_file_bytes is not None and info.size_bytes > options.max_file_bytes:
        raise JobError(
            f"the file has {info.size_bytes} bytes, at most {options.max_file_bytes} are taken (max_file_size)",
            code="source.too_large",
            data={"size_bytes": info.size_bytes, "max_file_size": options.max_file_bytes},
        )


def _format(origin: Origin, info: ObjectInfo, how: Compression, head: bytes, options: Options) -> Format:
    """The format, by content; a config that says another is refused, unless nothing was to be looked at."""
    if not options.tells_file:
        return Format(options.file_format)
    if how is Compression.NONE and is_workbook(origin, info):
        raise JobError(
            "expected csv, ndjson or json, got an XLSX workbook",
            code="source.format_unknown",
            hint="Save its sheet as CSV, and import that.",
        )
    found = formats.format_of(head)
    if options.file_format not in ("auto", found) and head.strip():
        raise JobError(f"expected {options.file_format}, got {found}", code="source.format_mismatch")
    if options.allowed_formats is not None and found not in options.allowed_formats:
        allowed = ", ".join(options.allowed_formats)
        raise JobError(f"expected a file of {allowed} (allowed_formats), got {found}", code="source.format_forbidden")
    return found


def _delimiter(head: bytes, encoding: Encoding, options: Options) -> formats.Guess:
    if options.delimiter == "auto":
        return formats.delimiter_of(head, encoding, skip_rows=options.skip_rows)
    return formats.Guess(options.delimiter, 1.0)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_source_bytes, settings.max_compression_ratio)


def open_planned(context: ImportContext, origin: Origin | UrlOrigin, plan: Plan, offset: int) -> ByteSource:
    """The file's bytes from ``offset`` on, as the plan has it."""
    kept = S3Origin(context.objects, ObjectRef(*plan.spool)) if plan.spool else origin
    if isinstance(kept, UrlOrigin):
        raise JobError("the plan has no copy of the URL's file", code="import.config_changed")
    return opened(context.settings, kept, plan, offset)


def opened(settings: Settings, origin: Origin, plan: Plan, offset: int) -> ByteSource:
    """The bytes of what the plan was made of, from ``offset`` on."""
    info = ObjectInfo(size_bytes=plan.size_bytes, etag=plan.etag)
    return unpacked(origin, info, plan.compression, offset=offset, limits=_limits(settings))


def reader_of(plan: Plan, read: _Read, place: Place, *, ignore_unknown: bool) -> Reader:
    """The reader that goes on at ``place``."""
    shape = Shape(plan.names, ignore_unknown=ignore_unknown, max_field_bytes=plan.max_field_bytes)
    return _reader(plan.file_format, read, shape, encoding=plan.encoding, delimiter=plan.delimiter, place=place)


def _reader(
    kind: Format, read: _Read, shape: Shape, *, encoding: Encoding, delimiter: str, place: Place
) -> RecordReader | LineReader | ArrayReader:
    if kind is Format.NDJSON:
        return LineReader(read, shape, first_byte=place.byte, first_line=place.line)
    if kind is Format.JSON:
        return ArrayReader(read, shape, first_byte=place.byte, first_line=place.line)
    return RecordReader(
        read,
        encoding=encoding,
        delimiter=delimiter,
        max_field_bytes=shape.max_field_bytes,
        first_byte=place.byte,
        first_line=place.line,
    )


def without_tokens(chunks: Iterator[Chunk], tokens: Iterable[str]) -> Iterator[Chunk]:
    """The chunks, with nothing where a value is one of ``tokens``."""
    nothing = {token.encode() for token in tokens}
    if not nothing:
        return chunks
    return (_emptied(chunk, nothing) for chunk in chunks)


def _emptied(chunk: Chunk, nothing: set[bytes]) -> Chunk:
    for column in chunk.columns:
        if not nothing.isdisjoint(column):
            column[:] = [b"" if value in nothing else value for value in column]
    return chunk
