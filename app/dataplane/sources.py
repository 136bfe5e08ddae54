"""The stored bytes of an object in S3, held to one ETag."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final, Protocol

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectInfo, ObjectReader, ObjectRef, ObjectStore

READ_BYTES: Final = 1 << 20
_REOPENINGS: Final = 5
_FIRST_WAIT_S: Final = 0.1


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
