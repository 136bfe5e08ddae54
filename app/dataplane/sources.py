"""The bytes of an object in S3 after decompression, held to one ETag and to limits on what they may grow to."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import Any, Final, Protocol

from isal import igzip_lib, isal_zlib

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectInfo, ObjectReader, ObjectRef, ObjectStore

READ_BYTES: Final = 1 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
_REOPENINGS: Final = 5
_FIRST_WAIT_S: Final = 0.1
_RATIO_FROM_BYTES: Final = 4 * 2**20
_GZIP_WINDOW_BITS: Final = 31
_NOT_GZIP: Any = igzip_lib.IsalError  # isal's own types call the class an instance


class ByteSource(Protocol):
    """Bytes that are read once, in order."""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end."""
        ...

    @property
    def stored_bytes_read(self) -> int:
        """How far the stored object has been read, counted from its start."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class StoredObject:
    """The stored bytes of an object from ``offset`` on; a stream that breaks off goes on where it broke.

    Args:
        info: What the object was when the job first saw it; every response must carry its ETag.
    """

    def __init__(self, objects: ObjectStore, ref: ObjectRef, info: ObjectInfo, *, offset: int = 0) -> None:
        self._objects = objects
        self._ref = ref
        self._info = info
        self._offset = offset
        self._reader: ObjectReader | None = None
        self._stack = ExitStack()
        self._failures = 0

    @property
    def stored_bytes_read(self) -> int:
        """How far the object has been read, counted from its start."""
        return self._offset

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` at the object's end.

        Raises:
            TransientError: The store failed several times at one place.
            JobError: ``s3.changed``: the object was replaced; ``s3.not_found`` and the like from the store.
        """
        while self._offset < self._info.size_bytes:
            try:
                data = self._open().read(size)
                if not data:
                    raise TransientError(
                        f"S3 ended {self._ref.bucket}/{self._ref.key} after {self._offset} bytes, "
                        f"expected {self._info.size_bytes}"
                    )
            except TransientError as error:
                self._recover(error)
                continue
            self._offset += len(data)
            self._failures = 0
            return data
        return b""

    def _open(self) -> ObjectReader:
        if self._reader is None:
            reader = self._stack.enter_context(
                self._objects.open(self._ref, offset=self._offset, if_match=self._info.etag)
            )
            if reader.info.etag != self._info.etag:
                raise JobError(
                    f"{self._ref.bucket}/{self._ref.key} changed while it was imported: expected ETag "
                    f"{self._info.etag}, got {reader.info.etag}",
                    code="s3.changed",
                    hint="Post a new job for the new file.",
                )
            self._reader = reader
        return self._reader

    def _recover(self, error: TransientError) -> None:
        """Drop the broken stream and wait a little; give up when it broke too often in one place."""
        self.close()
        self._failures += 1
        if self._failures > _REOPENINGS:
            raise error
        time.sleep(_FIRST_WAIT_S * 2 ** (self._failures - 1))

    def close(self) -> None:
        """Let go of the connection; a later read opens another."""
        self._reader = None
        self._stack.close()
        self._stack = ExitStack()


class GunzippedObject:
    """What a gzip object holds, member after member.

    Args:
        max_bytes: The most it may hold.
        max_ratio: The most it may hold for each stored byte, once it is past 4 MiB.
    """

    def __init__(self, stored: StoredObject, *, max_bytes: int, max_ratio: float) -> None:
        self._stored = stored
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._inflater = isal_zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
        self._rest = b""
        self._members = 0
        self._produced = 0

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
                self._count(len(data))
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

    def _count(self, produced: int) -> None:
        self._produced += produced
        if self._produced > self._max_bytes:
            raise JobError(
                f"the file holds more than {self._max_bytes} bytes after decompression",
                code="source.bomb",
                hint="Split the file, or raise HAULIER_MAX_SOURCE_BYTES.",
            )
        if self._produced > _RATIO_FROM_BYTES and self._produced > self._max_ratio * self.stored_bytes_read:
            raise JobError(
                f"the file grows more than {self._max_ratio:g} times by decompression: "
                f"{self.stored_bytes_read} stored bytes gave {self._produced}",
                code="source.bomb",
                hint="Store it uncompressed, or raise HAULIER_MAX_COMPRESSION_RATIO.",
            )

    def close(self) -> None:
        """Let go of the connection."""
        self._stored.close()


def is_gzip(objects: ObjectStore, ref: ObjectRef, info: ObjectInfo) -> bool:
    """Whether the object begins as a gzip file does."""
    stored = StoredObject(objects, ref, info)
    with closing(stored):
        first = stored.read(1)
        return first + stored.read(1) == GZIP_MAGIC


def open_source(
    objects: ObjectStore,
    ref: ObjectRef,
    info: ObjectInfo,
    *,
    gzipped: bool,
    offset: int,
    max_bytes: int,
    max_ratio: float,
) -> ByteSource:
    """The object's bytes after decompression, from byte ``offset`` of them on.

    A plain object is opened at the offset; a gzip one is read from its start, for there is no other way in.
    """
    if not gzipped:
        return StoredObject(objects, ref, info, offset=offset)
    source = GunzippedObject(StoredObject(objects, ref, info), max_bytes=max_bytes, max_ratio=max_ratio)
    while offset > 0:
        skipped = len(source.read(min(offset, READ_BYTES)))
        if not skipped:
            raise JobError(f"the file ends {offset} bytes before the checkpoint", code="source.corrupt")
        offset -= skipped
    return source
