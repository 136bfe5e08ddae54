"""What is in a compressed file, in order, held to limits on what it may grow to."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from isal import igzip_lib, isal_zlib

from app.dataplane.origins import BUFFER_BYTES, Origin, Seekable
from app.dataplane.sources import READ_BYTES, ByteSource
from app.dataplane.zstandard import zstd
from app.domain.errors import JobError
from app.domain.ports import ObjectInfo

_RATIO_FROM_BYTES: Final = 4 * 2**20
_GZIP_WINDOW_BITS: Final = 31
_NOT_GZIP: Any = igzip_lib.IsalError  # isal's own types call the class an instance
_ZIP_MAGIC: Final = b"PK\x03\x04"
_EMPTY_ZIP_MAGIC: Final = b"PK\x05\x06"
_MAGICS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", _ZIP_MAGIC: "zip", _EMPTY_ZIP_MAGIC: "zip"}
_MAGIC_BYTES: Final = 4
_ENCRYPTED: Final = 1
_WORKBOOK: Final = "xl/workbook.xml"
_DIRECTORY_BYTES: Final = 1 << 20


class Compression(StrEnum):
    """How a file is packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a file may grow when it is unpacked.

    Args:
        max_bytes: The most it may hold.
        max_ratio: The most it may hold for each stored byte, once it is past 4 MiB.
    """

    max_bytes: int
    max_ratio: float


class Growth:
    """Counts what comes out of a file."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._produced = 0

    def count(self, produced: int, stored: int) -> None:
        """Add ``produced`` bytes; ``stored`` were read for all of them.

        Raises:
            JobError: ``source.bomb``: a limit is passed.
        """
        self._produced += produced
        if self._produced > self._limits.max_bytes:
            raise JobError(
                f"the file holds more than {self._limits.max_bytes} bytes after decompression",
                code="source.bomb",
                hint="Split the file, or raise HAULIER_MAX_SOURCE_BYTES.",
            )
        if self._produced > _RATIO_FROM_BYTES and self._produced > self._limits.max_ratio * stored:
            raise JobError(
                f"the file grows more than {self._limits.max_ratio:g} times by decompression: "
                f"{stored} stored bytes gave {self._produced}",
                code="source.bomb",
                hint="Store it uncompressed, or raise HAULIER_MAX_COMPRESSION_RATIO.",
            )


class GunzippedObject:
    """What a gzip file holds, member after member."""

    def __init__(self, stored: ByteSource, limits: Limits) -> None:
        self._stored = stored
        self._growth = Growth(limits)
        self._inflater = isal_zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
        self._rest = b""
        self._members = 0

    @property
    def stored_bytes_read(self) -> int:
        """How far the stored object has been read."""
        return self._stored.stored_bytes_read

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end.

        Raises:
            JobError: ``source.bomb`` past a limit; ``source.corrupt`` when it is no gzip or ends early.
        """
        while True:
            if not self._rest:
                self._rest = self._stored.read(READ_BYTES)
                if not self._rest:
                    return self._end()
            if self._inflater.eof:
                self._next_member()
                continue
            data = self._inflate(size)
            if data:
                self._growth.count(len(data), self.stored_bytes_read)
                return data

    def _inflate(self, size: int) -> bytes:
        try:
            data: bytes = self._inflater.decompress(self._rest, size)
        except _NOT_GZIP as error:
            raise JobError(
                f"the file is not valid gzip near stored byte {self.stored_bytes_read}: {error}", code="source.corrupt"
            ) from error
        self._rest = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        if self._inflater.eof:
            self._members += 1
        return data

    def _next_member(self) -> None:
        self._rest = self._rest.lstrip(b"\0")  # padding after a member is allowed
        if not self._rest:
            return
        self._inflater = isal_zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)

    def _end(self) -> bytes:
        if not self._inflater.eof:
            raise JobError(
                f"the gzip file ends early: expected its trailer, got the end after {self.stored_bytes_read} bytes",
                code="source.corrupt",
            )
        return b""

    def close(self) -> None:
        """Let go of the connection."""
        self._stored.close()


class UnzstdObject:
    """What a zstd file holds, frame after frame."""

    def __init__(self, stored: ByteSource, limits: Limits) -> None:
        self._stored = stored
        self._growth = Growth(limits)
        self._frame = zstd.ZstdDecompressor()
        self._rest = b""

    @property
    def stored_bytes_read(self) -> int:
        """How far the stored object has been read."""
        return self._stored.stored_bytes_read

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end.

        Raises:
            JobError: ``source.bomb`` past a limit; ``source.corrupt`` when it is no zstd or ends early.
        """
        while True:
            if self._frame.eof:
                self._rest = self._frame.unused_data or self._stored.read(READ_BYTES)
                if not self._rest:
                    return b""
                self._frame = zstd.ZstdDecompressor()
            elif self._frame.needs_input and not self._rest:
                self._rest = self._stored.read(READ_BYTES)
                if not self._rest:
                    raise _corrupt("zstd", "it ends early", self.stored_bytes_read)
            try:
                data, self._rest = self._frame.decompress(self._rest, size), b""
            except zstd.ZstdError as error:
                raise _corrupt("zstd", str(error), self.stored_bytes_read) from error
            if data:
                self._growth.count(len(data), self.stored_bytes_read)
                return data

    def close(self) -> None:
        """Let go of the file."""
        self._stored.close()


class _Cautious(io.BufferedReader):
    """A zip file whose directory is not read when it is too long to be held."""

    is_open = False

    def read(self, size: int | None = -1) -> bytes:
        """At most ``size`` bytes; the directory is asked for in one piece."""
        if not self.is_open and size is not None and size > _DIRECTORY_BYTES:
            raise JobError(
                f"the directory of the zip file has {size} bytes, at most {_DIRECTORY_BYTES} are taken",
                code="source.zip_directory",
            )
        return super().read(size)


def _archive_in(origin: Origin, info: ObjectInfo) -> tuple[_Cautious, zipfile.ZipFile]:
    file = _Cautious(Seekable(origin, info), BUFFER_BYTES)
    with _explained(file.tell):
        archive = zipfile.ZipFile(file)
    file.is_open = True
    return file, archive


class UnzippedMember:
    """The one file in a zip file."""

    def __init__(self, origin: Origin, info: ObjectInfo, limits: Limits) -> None:
        self._file, self._archive = _archive_in(origin, info)
        with _explained(self._file.tell):
            member = _only_member(self._archive)
            self._member = self._archive.open(member)
        self._begin = member.header_offset
        # Neither more than the declared size nor another checksum passes, so the directory can be believed.
        Growth(limits).count(member.file_size, max(1, member.compress_size))

    @property
    def stored_bytes_read(self) -> int:
        """How far the archive has been read."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end.

        Raises:
            JobError: ``source.corrupt``: the member is damaged or not as long as the archive says.
        """
        with _explained(self._file.tell):
            data: bytes = self._member.read(size)
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._member.close()
        self._archive.close()
        self._file.close()


@contextmanager
def _explained(place: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        raise _corrupt("zip", str(error), place()) from error


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise JobError(
            f"the zip file holds {len(members)} files, expected one",
            code="source.zip_members",
            hint="Pack each file by itself.",
        )
    name = members[0].filename
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
        raise JobError(f"the file in the zip file is called {name!r}, which leaves its folder", code="source.zip_name")
    if members[0].flag_bits & _ENCRYPTED:
        raise JobError("the file in the zip file is encrypted", code="source.encrypted", hint="Pack it without.")
    return members[0]


def _corrupt(kind: str, reason: str, place: int) -> JobError:
    return JobError(f"the file is not valid {kind} near stored byte {place}: {reason}", code="source.corrupt")


def compression_of(origin: Origin, info: ObjectInfo) -> Compression:
    """How a file is packed, by its first bytes; a workbook is no packed file."""
    first = first_bytes(origin.open(info, 0), _MAGIC_BYTES)
    found = next((Compression(name) for magic, name in _MAGICS.items() if first.startswith(magic)), Compression.NONE)
    return Compression.NONE if found is Compression.ZIP and is_workbook(origin, info) else found


def is_workbook(origin: Origin, info: ObjectInfo) -> bool:
    """Whether a file is an XLSX one, by what stands in its table of contents."""
    if first_bytes(origin.open(info, 0), _MAGIC_BYTES) != _ZIP_MAGIC:
        return False
    file, archive = _archive_in(origin, info)
    with closing(file), archive:
        return _WORKBOOK in archive.namelist()


def check_growth(origin: Origin, info: ObjectInfo, limits: Limits) -> None:
    """Refuse a zip file whose directory says that all it holds is more than the limits; JobError ``source.bomb``."""
    file, archive = _archive_in(origin, info)
    with closing(file), archive:
        members = archive.infolist()
    packed = max(1, sum(member.compress_size for member in members))
    Growth(limits).count(sum(member.file_size for member in members), packed)


def first_bytes(source: ByteSource, size: int) -> bytes:
    """The first ``size`` bytes of a source, which is closed; fewer when it ends before."""
    head = b""
    with closing(source):
        while len(head) < size and (more := source.read(size - len(head))):
            head += more
    return head


def unpacked(origin: Origin, info: ObjectInfo, how: Compression, *, offset: int, limits: Limits) -> ByteSource:
    """The bytes in a file, from byte ``offset`` of them on.

    A plain file is opened at the offset; a packed one is read from its start, for there is no other way in.
    """
    if how is Compression.NONE:
        return origin.open(info, offset)
    source = _unpacker(origin, info, how, limits)
    while offset > 0:
        skipped = len(source.read(min(offset, READ_BYTES)))
        if not skipped:
            source.close()
            raise JobError(f"the file ends {offset} bytes before the checkpoint", code="source.corrupt")
        offset -= skipped
    return source


def _unpacker(origin: Origin, info: ObjectInfo, how: Compression, limits: Limits) -> ByteSource:
    if how is Compression.ZIP:
        return UnzippedMember(origin, info, limits)
    stored = origin.open(info, 0)
    return GunzippedObject(stored, limits) if how is Compression.GZIP else UnzstdObject(stored, limits)
