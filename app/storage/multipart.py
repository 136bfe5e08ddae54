"""Multipart uploads: parts leave in two threads while the next one fills."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import HaulierError, JobError, TransientError
from app.domain.ports import ObjectInfo, ObjectRef
from app.storage.s3_errors import explained

if TYPE_CHECKING:
    from app.storage.s3 import S3Store

PART_BYTES: Final = 8 * 2**20
PARTS_OF_ONE_SIZE: Final = 2_000
"""Parts double after so many: S3 takes 10,000 of them, and objects of 5 TB."""
UPLOAD_THREADS: Final = 2
PARTS_IN_MEMORY: Final = 3


def part_bytes(number: int) -> int:
    """Size of part ``number`` (from 1): 8 MiB, doubled every 2,000 parts."""
    return PART_BYTES << ((number - 1) // PARTS_OF_ONE_SIZE)


class S3Upload:
    """A multipart upload in progress (``domain.ports.ObjectUpload``); ``write`` belongs to one thread.

    Args:
        store: Whose client sends the parts.
        ref: The key that ``complete`` makes visible.
        upload_id: As S3 gave it.
    """

    def __init__(self, store: S3Store, ref: ObjectRef, upload_id: str) -> None:
        self.upload_id = upload_id
        self.size_bytes = 0
        self._store = store
        self._ref = ref
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._parts: list[Future[dict[str, object]]] = []
        self._threads = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="s3-part")
        self._in_memory = threading.Semaphore(PARTS_IN_MEMORY)

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append; blocks while three parts are in memory.

        Raises:
            JobError: S3 refused an earlier part.
            TransientError: An earlier part could not be sent.
        """
        self.size_bytes += len(data)
        rest = memoryview(data)
        while self._pending_bytes + len(rest) >= (size := part_bytes(len(self._parts) + 1)):
            missing = size - self._pending_bytes
            self._keep(rest[:missing])
            self._send()
            rest = rest[missing:]
        self._keep(rest)

    def finish_parts(self) -> list[dict[str, object]]:
        """Send what is left, wait for every part, and list them as ``complete`` takes them.

        Raises:
            JobError, TransientError: As the first part that failed.
        """
        if self._pending or not self._parts:
            self._send()
        try:
            return [part.result() for part in self._parts]
        finally:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def complete(self, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Make the object visible and compare its size with what was written.

        Raises:
            TransientError: ``s3.size_mismatch``: S3 holds another number of bytes.
        """
        info = self._store.complete_multipart(self._ref, self.upload_id, parts)
        if info.size_bytes != self.size_bytes:
            raise TransientError(
                f"wrote {self.size_bytes} bytes to key {self._ref.key!r}, S3 holds {info.size_bytes}",
                code="s3.size_mismatch",
            )
        return info

    def abort(self) -> None:
        """Drop the upload and its parts; never raises."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        # What stays behind costs space only until the bucket's sweep of unfinished uploads.
        with suppress(HaulierError):
            self._store.abort_upload(self._ref, self.upload_id)

    def _keep(self, data: memoryview) -> None:
        if data:
            self._pending.append(bytes(data))
            self._pending_bytes += len(data)

    def _send(self) -> None:
        self._raise_failed()
        self._in_memory.acquire()
        # bytes, not bytearray: boto3 would copy that once more.
        body = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._parts.append(self._threads.submit(self._upload, len(self._parts) + 1, body))

    def _raise_failed(self) -> None:
        for part in self._parts[-PARTS_IN_MEMORY - UPLOAD_THREADS :]:
            if part.done() and (error := part.exception()):
                raise error

    def _upload(self, number: int, body: bytes) -> dict[str, object]:
        try:
            with explained("s3:PutObject", self._ref):
                answer: dict[str, Any] = self._store.client.upload_part(
                    Bucket=self._ref.bucket,
                    Key=self._ref.key,
                    UploadId=self.upload_id,
                    PartNumber=number,
                    Body=body,
                )
            return {"PartNumber": number, "ETag": answer["ETag"]}
        finally:
            self._in_memory.release()


def checked_parts(parts: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """``parts`` in order, as CompleteMultipartUpload wants them.

    Raises:
        JobError: ``s3.parts_invalid``: none, a gap, a number twice, or an ETag that is no text.
    """
    ordered = sorted(parts, key=lambda part: int(str(part["PartNumber"])))
    numbers = [part["PartNumber"] for part in ordered]
    if numbers != list(range(1, len(ordered) + 1)) or not all(isinstance(part["ETag"], str) for part in ordered):
        raise JobError(
            f"parts are numbered 1 to their count, each with an ETag; got numbers {numbers[:20]}",
            code="s3.parts_invalid",
        )
    return [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in ordered]
