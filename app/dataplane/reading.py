"""How a file is read: found out by looking at it when the job is first claimed, and kept to from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol, cast

from app.dataplane import formats
from app.dataplane.chunks import NULL, Chunk, Encoding
from app.dataplane.compression import Compression, Limits, compression_of, first_bytes, is_workbook, unpacked
from app.dataplane.context import ImportContext
from app.dataplane.formats import Format
from app.dataplane.json_records import ArrayReader, LineReader
from app.dataplane.json_values import Shape
from app.dataplane.mapping import mapped_to
from app.dataplane.origins import Origin, S3Origin
from app.dataplane.plan import Mapped, Options, Plan
from app.dataplane.records import RecordReader
from app.dataplane.scanning import scan
from app.dataplane.sheet_reader import Found
from app.dataplane.sheet_records import SheetReader
from app.dataplane.sheets import SheetSource, seen_of, sheet_wanted
from app.dataplane.sources import ByteSource
from app.dataplane.spooling import UrlOrigin, removed_on_error, spool_url
from app.domain.errors import JobError, TransientError
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


def first_plan(
    context: ImportContext, origin: Origin | UrlOrigin, table: Table, options: Options, held: ExitStack
) -> tuple[Plan, ByteSource | None]:
    """What to do with a file; one that cannot be read at any place is copied first.

    Returns:
        A sheet's records, too: they are begun already. ``held`` closes them in the end.
    Raises:
        JobError: As ``checked``, ``look`` and ``SheetSource``, or its header does not fit the table.
    """
    copy = copied(context, origin, options) if isinstance(origin, UrlOrigin) else None
    with removed_on_error(context, copy.ref if copy else None):
        plan, source = _unmapped_plan(context, copy or cast("Origin", origin), table, options, held)
        plan = mapped_to(plan, table, options, max_columns=context.settings.max_columns)
    return replace(
        plan,
        spool=(copy.ref.bucket, copy.ref.key) if copy else None,
        fingerprint=options.fingerprint(origin.place, table.name),
        records=options.records_fingerprint(origin.place, table.name),
    ), source


def _unmapped_plan(
    context: ImportContext, origin: Origin, table: Table, options: Options, held: ExitStack
) -> tuple[Plan, ByteSource | None]:
    settings = context.settings
    info = checked(settings, origin, options, go_on=context.tell)
    if not is_sheet(origin, info, options):
        return look(settings, origin, info, table, options), None
    wanted = sheet_wanted(settings, table, options)
    source = held.enter_context(closing(SheetSource(settings, origin, info, wanted, go_on=context.tell)))
    # Names that no column has are left out, so that they are not kept, nor looked for.
    kept = replace(wanted, names=wanted.names and wanted.names[: source.found.width])
    return replace(plan_of_sheet(settings, source.found, info, table, options), sheet=kept), source


def copied(context: ImportContext, origin: UrlOrigin, options: Options) -> S3Origin:
    """Our own copy of a file that cannot be read at any place."""
    return S3Origin(context.objects, spool_url(context, origin, max_bytes=options.max_file_bytes))


@contextmanager
def at_any_place(context: ImportContext, origin: Origin | UrlOrigin, options: Options) -> Iterator[Origin]:
    """The origin, or a copy that goes in the end, if it cannot be read at any place."""
    if not isinstance(origin, UrlOrigin):
        yield origin
        return
    copy = copied(context, origin, options)
    try:
        yield copy
    finally:
        with suppress(TransientError):
            context.objects.delete([copy.ref])


def checked(settings: Settings, origin: Origin, options: Options, *, go_on: Callable[[], None]) -> ObjectInfo:
    """What a file is known by, once it is known not to be too large, and clean when that is asked for.

    Raises:
        JobError: ``source.too_large``; as ``scan``.
    """
    info = origin.info()
    _refuse_large(info, options)
    if options.scan:
        scan(settings, origin, info, go_on)
    return info


def is_sheet(origin: Origin, info: ObjectInfo, options: Options) -> bool:
    """Whether the file is a workbook, a sheet of which is to be read.

    Raises:
        JobError: It is one, and another format is wanted.
    """
    found = options.tells_file and options.compression in ("auto", "none") and is_workbook(origin, info)
    if found:
        _check_wanted(Format.XLSX, options)
    return found


def plan_of_sheet(settings: Settings, found: Found, info: ObjectInfo, table: Table | None, options: Options) -> Plan:
    """How the lines of a sheet are to be read; ``info`` is of what they are read from."""
    names = found.names
    if options.header is False:
        names = list(_by_position(found.width, table, options))
    return _unmapped(
        settings,
        info,
        options,
        compression=Compression.NONE,
        file_format=Format.NDJSON,
        delimiter=",",
        encoding=Encoding.UTF_8,
        first_byte=0,
        first_line=found.first_row,
        names=tuple(names),
        seen={**seen_of(found), "compression": Compression.NONE.value},
    )


def _unmapped(settings: Settings, info: ObjectInfo, options: Options, **found: Any) -> Plan:
    """A plan of which nothing goes to any column yet; ``found`` is how the records stand in the file."""
    return Plan(
        etag=info.etag,
        size_bytes=info.size_bytes,
        fingerprint="",
        mapped=Mapped((), (), generates_key=False),
        batch_rows=options.batch_rows or settings.batch_rows,
        batch_bytes=settings.max_batch_bytes if options.batch_rows else settings.batch_bytes,
        lanes=_lanes(settings, options),
        max_field_bytes=settings.max_field_bytes,
        null_tokens=options.null_tokens,
        ignore_unknown=options.ignore_unknown,
        keeps_empty=options.keeps_empty,
        shaping=options.shaping,
        **found,
    )


def _lanes(settings: Settings, options: Options) -> int:
    """Of a batch that one of two lanes has committed, the other must write just what it would have written then."""
    return 1 if options.shaping.may_differ else options.lanes or settings.lanes


def look(settings: Settings, origin: Origin, info: ObjectInfo, table: Table | None, options: Options) -> Plan:
    """How a file is to be read, by what is in it; nothing of it goes to any column yet.

    Args:
        info: Of the origin, as ``checked`` gives it.
        table: Whose columns the fields of a file without a header are, in order.
    Raises:
        JobError: It is of another format than is wanted.
    """
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
    found: dict[str, Any] = {"encoding": encoding.value, "encoding_confidence": certainty}
    if kind is Format.CSV:
        found |= {"delimiter": delimiter.value, "delimiter_confidence": delimiter.confidence}
    return _unmapped(
        settings,
        info,
        options,
        compression=how,
        file_format=kind,
        delimiter=delimiter.value,
        encoding=encoding,
        first_byte=begun.first_byte,
        first_line=begun.first_line,
        names=tuple(names),
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
    return opened(context.settings, kept, plan, offset, go_on=context.tell)


def opened(
    settings: Settings, origin: Origin, plan: Plan, offset: int, *, go_on: Callable[[], None] = lambda: None
) -> ByteSource:
    """The bytes of what the plan was made of, from ``offset`` on."""
    info = ObjectInfo(size_bytes=plan.size_bytes, etag=plan.etag)
    if plan.sheet is not None:
        with ExitStack() as stack:
            source = stack.enter_context(closing(SheetSource(settings, origin, info, plan.sheet, go_on=go_on)))
            source.skip(offset)
            stack.pop_all()
        return source
    return unpacked(origin, info, plan.compression, offset=offset, limits=_limits(settings))


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


def reader_of(plan: Plan, source: ByteSource, place: Place) -> Reader:
    """The reader that goes on at ``place``, where the source is."""
    shape = Shape(plan.names, plan.ignore_unknown, plan.max_field_bytes, keeps_null=plan.keeps_empty)
    if isinstance(source, SheetSource):
        return SheetReader(source.block, shape, first_byte=place.byte, first_line=place.line)
    return _reader(plan.file_format, source.read, shape, encoding=plan.encoding, delimiter=plan.delimiter, place=place)


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
