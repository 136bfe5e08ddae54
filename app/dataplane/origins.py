"""Where the bytes of an import come from: each origin says what it holds, and is opened at any byte."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from app.dataplane.sources import ByteSource, StoredObject
from app.domain.errors import JobError, PermanentError
from app.domain.job_types import FilePlace
from app.domain.ports import ObjectInfo, ObjectRef, ObjectStore

BUFFER_BYTES: Final = 1 << 20


class Origin(Protocol):
    """A file that does not change while it is imported, or tells that it did."""

    @property
    def place(self) -> str:
        """What the file is known by; another place is another load."""
        ...

    def info(self) -> ObjectInfo:
        """Its size, and an ETag that is another one when its bytes are."""
        ...

    def open(self, info: ObjectInfo, offset: int) -> ByteSource:
        """Its bytes from ``offset`` on; a JobError when it is no longer what ``info`` says."""
        ...


@dataclass(frozen=True, slots=True)
class S3Origin:
    """An object in S3.

    Args:
        received: Told what HEAD says; raises when the object is not what it was announced to be.
    """

    objects: ObjectStore
    ref: ObjectRef
    received: Callable[[ObjectRef, ObjectInfo], None] | None = None

    @property
    def place(self) -> str:
        """Bucket and key."""
        return f"{self.ref.bucket}/{self.ref.key}"

    def info(self) -> ObjectInfo:
        """What HEAD says; errors as ``received``."""
        info = self.objects.head(self.ref)
        if self.received is not None:
            self.received(self.ref, info)
        return info

    def open(self, info: ObjectInfo, offset: int) -> ByteSource:
        """Every response must carry the ETag."""
        return StoredObject(self.objects, self.ref, info, offset=offset)


class StreamSource:
    """A local stream as a source."""

    def __init__(self, stream: io.BufferedIOBase | io.RawIOBase) -> None:
        self._stream = stream

    @property
    def stored_bytes_read(self) -> int:
        """How far the file has been read."""
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        return self._stream.read(size) or b""

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


@dataclass(frozen=True, slots=True)
class TextOrigin:
    """Bytes that the job's config brings."""

    data: bytes

    @property
    def place(self) -> str:
        """The config holds the text itself, so nothing more is needed."""
        return "text"

    def info(self) -> ObjectInfo:
        """The ETag is a digest of the text."""
        return ObjectInfo(len(self.data), hashlib.sha256(self.data).hexdigest())

    def open(self, info: ObjectInfo, offset: int) -> ByteSource:
        """From memory."""
        _same(info, self.info(), "the text")
        stream = io.BytesIO(self.data)
        stream.seek(offset)
        return StreamSource(stream)


@dataclass(frozen=True, slots=True)
class PathOrigin:
    """A file of this machine below ``root``.

    Args:
        parts: The folders and the name, from ``root`` on; no link among them is followed.
    """

    root: Path
    parts: tuple[str, ...]

    @property
    def place(self) -> str:
        """The path as it stands below the root."""
        return "/".join(self.parts)

    def info(self) -> ObjectInfo:
        """The ETag is made of what the file system keeps of a change.

        Raises:
            JobError: ``source.not_found``; ``source.path_forbidden`` for what is no plain file or is behind a link.
        """
        with closing(self._open()) as stream:
            return _info_of(stream)

    def open(self, info: ObjectInfo, offset: int) -> ByteSource:
        """The same file at ``offset``; errors as ``info``, and ``source.changed``."""
        stream = self._open()
        try:
            _same(info, _info_of(stream), self.place)
        except JobError:
            stream.close()
            raise
        stream.seek(offset)
        return StreamSource(stream)

    def _open(self) -> io.FileIO:
        # From folder to folder by descriptors: nothing that is put in the way meanwhile leads elsewhere.
        try:
            at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            for part in self.parts[:-1]:
                at = _step(at, part, os.O_DIRECTORY)
            file = _step(at, self.parts[-1], os.O_NONBLOCK)
        except FileNotFoundError:
            raise JobError(f"there is no file {self.place!r} in the import folder", code="source.not_found") from None
        except OSError as error:
            raise _forbidden(f"{self.place!r} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise _forbidden(f"{self.place!r} is no plain file")
        return io.FileIO(file)


def _step(folder: int, name: str, kind: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=folder)
    finally:
        os.close(folder)


def _forbidden(detail: str) -> PermanentError:
    return PermanentError(detail, code="source.path_forbidden", hint="Plain files are read; no link is followed.")


def _info_of(stream: io.FileIO) -> ObjectInfo:
    kept = os.fstat(stream.fileno())
    return ObjectInfo(kept.st_size, f"{kept.st_ino:x}-{kept.st_size:x}-{kept.st_mtime_ns:x}")


def _same(expected: ObjectInfo, came: ObjectInfo, what: str) -> None:
    if came.etag != expected.etag:
        raise JobError(
            f"{what} changed while it was imported: expected {expected.etag}, got {came.etag}",
            code="source.changed",
            hint="Post a new job for the new file.",
        )


def origin_at(
    place: FilePlace,
    *,
    objects: ObjectStore,
    received: Callable[[ObjectRef, ObjectInfo], None],
    import_root: str | None,
) -> Origin:
    """The origin of a file that can be read at any place.

    Args:
        received: As of ``S3Origin``.
        import_root: What a path is below; there is one where there are paths.
    """
    match place:
        case ObjectRef():
            return S3Origin(objects, place, received)
        case bytes():
            return TextOrigin(place)
    return PathOrigin(Path(cast("str", import_root)), place)


class Seekable(io.RawIOBase):
    """An origin as a file that can be read at any place, for formats that keep their table of contents at the end.

    Args:
        go_on: Called before each read; raises when there is to be an end.
    """

    def __init__(self, origin: Origin, info: ObjectInfo, *, go_on: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._go_on = go_on
        self._origin = origin
        self._info = info
        self._at = 0
        self._source: ByteSource | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; the next read opens the origin there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._info.size_bytes}[whence]
        place = max(0, base + offset)
        if place != self._at:
            self._drop()
            self._at = place
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed says Buffer, io gives this
        """Fill ``buffer`` as far as one read goes."""
        self._go_on()
        if self._source is None:
            self._source = self._origin.open(self._info, self._at)
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the origin."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None


def seekable(origin: Origin, info: ObjectInfo) -> io.BufferedReader:
    """The origin as a buffered file."""
    return io.BufferedReader(Seekable(origin, info), BUFFER_BYTES)
