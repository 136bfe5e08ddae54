"""How a file is read: found out by looking at it when the job is first claimed, and kept to from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol, cast

from app.dataplane import formats
from app.dataplane.chunks import NULL, Chunk, Encoding
from app.dataplane.compression import Compression, Limits, compression_of, first_bytes, is_workbook, unpacked
from app.dataplane.context import ImportContext
from app.dataplane.formats import Format
from app.dataplane.json_records import ArrayReader, LineReader
from app.dataplane.json_values import Shape
from app.dataplane.origins import Origin, S3Origin
from app.dataplane.plan import Options, Plan, map_header
from app.dataplane.records import RecordReader
from app.dataplane.scanning import scan
from app.dataplane.sheets import Sheet, seen_of, spool_sheet
from app.dataplane.sources import ByteSource
from app.dataplane.spooling import UrlOrigin, removed_on_error, spool_url
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
    """What to do with a file; one that cannot be read at any place is copied first. Errors as ``_plan_of``."""
    copy = None
    if isinstance(origin, UrlOrigin):
        copy = spool_url(context, origin, max_bytes=options.max_file_bytes)
    readable = S3Origin(context.objects, copy) if copy else cast("Origin", origin)
    with removed_on_error(context, copy):
        plan = _scanned_plan(context, readable, table, options)
    if copy and plan.spool is None:
        plan = replace(plan, spool=(copy.bucket, copy.key))
    elif copy:
        context.objects.delete([copy])
    return replace(
        plan,
        fingerprint=options.fingerprint(origin.place, table.name),
        records=options.records_fingerprint(origin.place, table.name),
    )


def _scanned_plan(context: ImportContext, origin: Origin, table: Table, options: Options) -> Plan:
    if not options.scan:
        return _plan_of_any(context, origin, table, options)
    scanned = origin.info()
    scan(context, origin, scanned)
    plan = _plan_of_any(context, origin, table, options)
    if origin.info().etag != scanned.etag:
        raise JobError("the file changed after it was scanned", code="source.changed")
    return plan


def _plan_of_any(context: ImportContext, origin: Origin, table: Table, options: Options) -> Plan:
    if options.tells_file and options.compression in ("auto", "none"):
        info = origin.info()
        if is_workbook(origin, info):
            _refuse_large(info, options)
            _check_wanted(Format.XLSX, options)
            sheet = spool_sheet(context, origin, info, table, options)
            with removed_on_error(context, sheet.ref):
                return _plan_of_sheet(context, sheet, table, options)
    return _plan_of(context, origin, table, options)


def _plan_of_sheet(context: ImportContext, sheet: Sheet, table: Table, options: Options) -> Plan:
    settings, names = context.settings, sheet.found.names
    if options.header is False:
        names = list(_by_position(sheet.found.width, table, options))
    info = context.objects.head(sheet.ref)
    return Plan(
        etag=info.etag,
        size_bytes=info.size_bytes,
        fingerprint="",
        compression=Compression.NONE,
        file_format=Format.NDJSON,
        delimiter=",",
        encoding=Encoding.UTF_8,
        first_byte=0,
        first_line=sheet.found.first_row,
        names=tuple(names),
        mapped=map_header(names, table, options, max_columns=settings.max_columns),
        batch_rows=options.batch_rows or settings.batch_rows,
        lanes=options.lanes or settings.lanes,
        max_field_bytes=settings.max_field_bytes,
        seen={**seen_of(sheet), "compression": Compression.NONE.value},
        spool=(sheet.ref.bucket, sheet.ref.key),
        null_tokens=options.null_tokens,
        ignore_unknown=options.ignore_unknown,
        keeps_empty=options.keeps_empty,
    )


def _plan_of(context: ImportContext, origin: Origin, table: Table, options: Options) -> Plan:
    """What to do with a file, by what is in it.

    Raises:
        JobError: It is too large, of another format than is wanted, or its header does not fit the table.
    """
    settings, info = context.settings, origin.info()
    _refuse_large(info, options)
    how = compression_of(origin, info) if options.compression == "auto" else Compression(options.compression)
    head = first_bytes(unpacked(origin, info, how, offset=0, limits=_limits(settings)), formats.HEAD_BYTES)
    kind = _format(head, options)
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
    found = {"encoding": encoding.value, "encoding_confidence": certainty}
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
        mapped=map_header(names, table, options, max_columns=settings.max_columns),
        batch_rows=options.batch_rows or settings.batch_rows,
        lanes=options.lanes or settings.lanes,
        max_field_bytes=settings.max_field_bytes,
        seen={"format": kind.value, "compression": how.value, **found} if options.tells_file else {},
        null_tokens=options.null_tokens,
        ignore_unknown=options.ignore_unknown,
        keeps_empty=options.keeps_empty,
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

    def names(self, table: Table) -> Sequence[str]:
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


def _by_position(width: int, table: Table, options: Options) -> Sequence[str]:
    """Names for the fields of a file without a header: the table's columns in order, unless a mapping is given."""
    if options.mapping:
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


def _format(head: bytes, options: Options) -> Format:
    """The format, by content; a config that says another is refused, unless nothing was to be looked at."""
    if not options.tells_file:
        return Format(options.file_format)
    found = formats.format_of(head)
    if head.strip():
        _check_wanted(found, options)
    return found


def _check_wanted(found: Format, options: Options) -> None:
    if options.file_format not in ("auto", found):
        raise JobError(f"expected {options.file_format}, got {found}", code="source.format_mismatch")
    if options.allowed_formats is not None and found not in options.allowed_formats:
        allowed = ", ".join(options.allowed_formats)
        raise JobError(f"expected a file of {allowed} (allowed_formats), got {found}", code="source.format_forbidden")


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
    info = ObjectInfo(size_bytes=plan.size_bytes, etag=plan.etag)
    return unpacked(kept, info, plan.compression, offset=offset, limits=_limits(context.settings))


def chunks_of(plan: Plan, reader: Reader) -> Iterator[Chunk]:
    """The records from where the reader stands, with nothing where a value stands for NULL."""
    chunks = reader.chunks(plan.width)
    return (nulls_told(chunk, plan) for chunk in chunks) if plan.null_tokens else chunks


def nulls_told(chunk: Chunk, plan: Plan) -> Chunk:
    """The chunk, with nothing where a value is one that stands for NULL."""
    nothing, null = {token.encode() for token in plan.null_tokens}, NULL if plan.keeps_empty else b""
    for column in chunk.columns:
        if not nothing.isdisjoint(column):
            column[:] = [null if value in nothing else value for value in column]
    return chunk


def reader_of(plan: Plan, read: _Read, place: Place) -> Reader:
    """The reader that goes on at ``place``."""
    shape = Shape(plan.names, plan.ignore_unknown, plan.max_field_bytes, keeps_null=plan.keeps_empty)
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
