"""The files that a job type makes: an object in S3 under the job's fence, and its row."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid5

from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.errors import FenceLost, TransientError
from app.domain.places import artifact_key, safe_name
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence import artifacts, jobs
from app.storage.scope import resolve
from tasks.counts import count_of

if TYPE_CHECKING:
    from tasks.context import RunContext

_CONTENT_TYPE: Final = re.compile(r"[\x20-\x7e]{1,255}")
_PIECE_BYTES: Final = 1 << 20
_WHOLE_BYTES: Final = 8 << 20
"""A file up to this size goes in one request."""


class SupportsRead(Protocol):
    """What can be read forwards."""

    def read(self, size: int, /) -> bytes | None:
        """At most ``size`` bytes; nothing at the end."""
        ...


def store(
    job: RunContext, name: str, stream: SupportsRead | bytes, *, content_type: str, rows: int | None = None
) -> Artifact:
    """Store a file and then its row, guarded by the fence; of the same name, only the last stays.

    Raises:
        FenceLost: The job is no longer held; the object is removed.
        TransientError: S3 is away.
        TypeError, ValueError: What was given is no file, no type of content or no number of rows.
    """
    if not isinstance(stream, bytes) and not hasattr(stream, "read"):
        raise TypeError(f"a file is bytes, or has read(), got {type(stream).__name__}")
    if _CONTENT_TYPE.fullmatch(content_type) is None:
        raise ValueError(f"a content type has 1 to 255 printable characters of ASCII, got {content_type!r:.100}")
    if rows is not None:
        rows = count_of("the number of rows of a file", rows)
    prefix = job.settings.s3_upload_file_path_prefix
    key = artifact_key(prefix, job.id, job.job.fence, name)
    ref = resolve(job.settings, job.job.tenant, None, key)
    source = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    filename = ref.key.rsplit("/", 1)[-1]
    size_bytes, sha256 = send(job, job.objects, ref, source, content_type=content_type, filename=filename)
    artifact = Artifact(
        id=uuid5(job.id, f"file/{safe_name(name)}"),
        job_id=job.id,
        tenant=job.job.tenant,
        kind=ArtifactKind.FILE,
        name=safe_name(name),
        content_type=content_type,
        ref=ref,
        size_bytes=size_bytes,
        sha256=sha256,
        rows=rows,
        expires_at=job.clock.now() + timedelta(seconds=job.settings.artifact_ttl_s),
    )
    _record(job, artifact)
    _remove_earlier(job, artifact)
    return artifact


def send(
    job: RunContext,
    store: ObjectStore,
    ref: ObjectRef,
    stream: SupportsRead,
    *,
    content_type: str,
    filename: str | None = None,
    begun: Callable[[str], None] | None = None,
) -> tuple[int, str]:
    """Send a stream, which stands there whole or not at all; its bytes and their SHA-256 in hex.

    Args:
        begun: Told the upload's id before its first part, when the stream goes in parts.
    """
    digest = hashlib.sha256()
    piece = _read(stream, _WHOLE_BYTES)
    if len(piece) < _WHOLE_BYTES:
        digest.update(piece)
        store.put(ref, piece, content_type=content_type, filename=filename)
        return len(piece), digest.hexdigest()
    size_bytes = 0
    upload = store.start_upload(ref, content_type=content_type, filename=filename)
    try:
        if begun is not None:
            begun(upload.upload_id)
        while piece:
            digest.update(piece)
            size_bytes += len(piece)
            upload.write(piece)
            job.tell()
            piece = stream.read(_PIECE_BYTES) or b""
        upload.complete(upload.finish_parts())
    except BaseException:
        upload.abort()
        raise
    return size_bytes, digest.hexdigest()


def _read(stream: SupportsRead, size: int) -> bytes:
    """``size`` bytes, fewer only at the end: a stream may give less at a time than was asked for."""
    pieces = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _record(job: RunContext, artifact: Artifact) -> None:
    try:
        with job.sessions.begin() as session:
            artifacts.put(session, job.job.tenant, artifact)
            signals = jobs.advance(session, job.job)
    except FenceLost:
        job.objects.delete([artifact.ref])
        raise
    job.heed(signals)


def _remove_earlier(job: RunContext, artifact: Artifact) -> None:
    """Remove the objects of this name that earlier holders left, whether or not they came to write a row.

    Never a later one's: this holder may have been stopped since it wrote its own row.
    """
    if job.job.fence == 1:
        return
    bucket, (folder, _, name) = artifact.ref.bucket, artifact.ref.key.rsplit("/", 2)
    earlier = {f"{folder}/{fence}/{name}" for fence in range(1, job.job.fence)}
    # What is left because S3 is away is shown to nobody, and the next run that stores this file finds it.
    with suppress(TransientError):
        found = [key for key, _ in job.objects.list(bucket, f"{folder}/") if key in earlier]
        job.objects.delete([ObjectRef(bucket, key) for key in found])
