"""What services need from the world outside and meet only through these protocols."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the time: the real one, and a frozen one in tests."""

    def now(self) -> datetime:
        """Aware UTC."""
        ...


class Bell(Protocol):
    """Tells a queue or the engine that there may be work. Never blocks and never raises: a lost ring costs a tick."""

    def ring(self, queue: str, times: int = 1) -> None:
        """Wake up to ``times`` workers of ``queue``."""
        ...

    def ring_engine(self) -> None:
        """Wake the engine before its next tick."""
        ...

    def tell_ended(self, job_ids: Iterable[UUID]) -> None:
        """Wake the requests that wait for these jobs."""
        ...


class Ended(Protocol):
    """Hears of jobs that ended. Never raises: an end that is not heard of is found by looking."""

    def hear(self, timeout_s: float) -> set[UUID]:
        """Jobs that ended meanwhile, as soon as there are any; none after ``timeout_s``."""
        ...

    def close(self) -> None:
        """Hear no more, until the next ``hear``."""
        ...


class Timer(Protocol):
    """Has schedules fired at their instants. Never blocks and never raises: an alarm that is lost costs seconds."""

    def arm(self, alarms: Mapping[UUID, datetime | None]) -> None:
        """Set when each schedule is fired next, instead of what was set before; ``None`` takes its alarm away."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in S3."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What HEAD says of an object; ``etag`` is without its quotes."""

    size_bytes: int
    etag: str
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload that is neither joined nor aborted."""

    ref: ObjectRef
    upload_id: str
    begun_at: datetime


class ObjectReader(Protocol):
    """The bytes of an object from some offset on."""

    info: ObjectInfo

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end. Raises TransientError when the stream breaks off early."""
        ...


class ObjectUpload(Protocol):
    """A multipart upload in progress. Nothing is visible under the key before ``complete``."""

    upload_id: str

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append; full parts leave in background threads, a bounded number at a time."""
        ...

    def finish_parts(self) -> list[dict[str, object]]:
        """Send what is left and wait for every part; the list ``complete`` takes: ``{"PartNumber", "ETag"}``."""
        ...

    def complete(self, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Make the object visible, HEAD it and compare its size with what was written."""
        ...

    def abort(self) -> None:
        """Drop the upload and its parts; never raises."""
        ...


class ObjectStore(Protocol):
    """S3. Methods raise JobError (``s3.not_found``, ``s3.forbidden``, ``s3.no_such_bucket``) or TransientError."""

    def spent_s(self) -> float:
        """Seconds that threads of this process have waited for it, each for itself."""
        ...

    def head(self, ref: ObjectRef) -> ObjectInfo:
        """Size and ETag."""
        ...

    def open(
        self, ref: ObjectRef, *, offset: int = 0, if_match: str | None = None
    ) -> AbstractContextManager[ObjectReader]:
        """Stream an object; an ETag other than ``if_match`` is a JobError ``s3.changed``."""
        ...

    def put(
        self, ref: ObjectRef, body: bytes | BinaryIO, *, content_type: str, filename: str | None = None
    ) -> ObjectInfo:
        """Store a small object whole."""
        ...

    def start_upload(self, ref: ObjectRef, *, content_type: str, filename: str | None = None) -> ObjectUpload:
        """Begin a multipart upload; ``filename`` becomes the Content-Disposition."""
        ...

    def abort_upload(self, ref: ObjectRef, upload_id: str) -> None:
        """Drop somebody's unfinished upload; unknown ids are fine."""
        ...

    def delete(self, refs: Sequence[ObjectRef]) -> None:
        """Remove objects; missing ones are fine."""
        ...

    def presign_get(self, ref: ObjectRef, *, ttl_s: int) -> str:
        """A URL that downloads the object without a key."""
        ...

    def presign_put(
        self, ref: ObjectRef, *, ttl_s: int, content_type: str | None = None, size_bytes: int | None = None
    ) -> str:
        """A URL that stores the object by one PUT, of that type and length where they are given."""
        ...

    def start_presigned_multipart(
        self, ref: ObjectRef, *, parts: Sequence[int | None], ttl_s: int, content_type: str | None = None
    ) -> tuple[str, list[str]]:
        """An upload id and one PUT URL per part, each of that length where it is given."""
        ...

    def complete_multipart(self, ref: ObjectRef, upload_id: str, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Join the parts a client has sent."""
        ...

    def unfinished(self, bucket: str) -> Iterator[Unfinished]:
        """Every multipart upload in progress."""
        ...

    def list(self, bucket: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Keys below a prefix, in order."""
        ...
