"""Our own copy of a source that cannot be read again at any place: made once, under the job's fence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid5

from app.dataplane.context import ImportContext
from app.domain import places
from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.errors import JobError, TransientError
from app.domain.ports import Clock, ObjectRef
from app.security.outgoing.bodies import ResponseTooLargeError
from app.security.outgoing.calls import Call, Reply
from app.security.outgoing.faults import unexpected_status
from app.security.outgoing.guard import Outgoing

SPOOLING: Final = {"spooling": True}
_REDIRECTS: Final = 5
_RESUMPTIONS: Final = 5
_OK: Final = 200
_PARTIAL: Final = 206


@dataclass(frozen=True, slots=True)
class UrlOrigin:
    """A file that some server gives; copied to S3 before it is read."""

    url: str

    @property
    def place(self) -> str:
        """A digest, for a URL may hold a secret."""
        return f"url:{hashlib.sha256(self.url.encode()).hexdigest()}"


def spool_url(context: ImportContext, origin: UrlOrigin, *, max_bytes: int | None) -> ObjectRef:
    """Copy what a URL gives to S3.

    Raises:
        PermanentError: The URL may not be called.
        JobError: ``source.too_large``; the server refuses.
        TransientError: The connection broke, and the server cannot go on where it did.
    """
    most = min(context.settings.max_source_bytes, max_bytes or context.settings.max_source_bytes)
    return _spool(context, _downloaded(context, origin.url, most))


def _spool(context: ImportContext, pieces: Iterable[bytes]) -> ObjectRef:
    """Keep ``pieces`` as a file of the job, below its fence: a former holder never writes over it.

    Until the import has begun the job's checkpoint says that there may be copies: should it never run again, they are
    swept.
    """
    context.checkpoint(SPOOLING)
    key = places.artifact_key(context.settings.s3_upload_file_path_prefix, context.id, context.job.fence, "source")
    ref = places.place(context.job.tenant, None, key, own_bucket=context.settings.s3_bucket, allowed=())
    upload = context.objects.start_upload(ref, content_type="application/octet-stream")
    try:
        for piece in pieces:
            upload.write(piece)
            context.tell()
        upload.complete(upload.finish_parts())
    except BaseException:
        upload.abort()
        raise
    _remove_earlier(context, ref)
    return ref


def _remove_earlier(context: ImportContext, ref: ObjectRef) -> None:
    """Remove copies of earlier holders, who were killed before they could say that they had made them."""
    if context.job.fence == 1:
        return
    folder, _, name = ref.key.rsplit("/", 2)
    earlier = {f"{folder}/{fence}/{name}" for fence in range(1, context.job.fence)}
    with suppress(TransientError):  # then the next copy finds them
        found = [key for key, _ in context.objects.list(ref.bucket, f"{folder}/") if key in earlier]
        context.objects.delete([ObjectRef(ref.bucket, key) for key in found])


@contextmanager
def removed_on_error(context: ImportContext, ref: ObjectRef | None) -> Iterator[None]:
    """Remove a copy that comes to no use."""
    try:
        yield
    except BaseException:
        with suppress(TransientError):
            context.objects.delete([ref] if ref else [])
        raise


def copy_of(context: ImportContext, ref: ObjectRef, size_bytes: int) -> Artifact:
    """What is known of a copy, so that it goes some time after the job."""
    return Artifact(
        id=uuid5(context.id, "source"),
        job_id=context.id,
        tenant=context.job.tenant,
        kind=ArtifactKind.SOURCE,
        name="source",
        content_type="application/octet-stream",
        ref=ref,
        size_bytes=size_bytes,
        expires_at=context.clock.now() + timedelta(seconds=context.settings.artifact_ttl_s),
    )


def _downloaded(context: ImportContext, url: str, most_bytes: int) -> Iterator[bytes]:
    """The bytes of a URL; a broken connection goes on by a range while the ETag is the same."""
    read, etag, failures = 0, "", 0
    while True:
        headers = {"Accept-Encoding": "identity"}
        if read:
            headers |= {"Range": f"bytes={read}-", "If-Range": etag}
        call = Call(
            "GET",
            url,
            headers,
            timeout_s=context.settings.url_timeout_s,
            max_response_bytes=most_bytes - read,
            max_redirects=_REDIRECTS,
        )
        try:
            with Outgoing.from_settings(context.settings).send(call, job=context) as reply:
                _check(reply, read, context.clock)
                etag = reply.headers.get("ETag", "")
                for piece in reply.chunks():
                    read += len(piece)
                    yield piece
            return
        except ResponseTooLargeError:
            raise JobError(f"the URL gives more than {most_bytes} bytes", code="source.too_large") from None
        except TransientError as error:
            failures += 1
            if (
                isinstance(error, _BeginAnewError)
                or not read
                or not etag
                or etag.startswith("W/")
                or failures > _RESUMPTIONS
            ):
                raise


def _check(reply: Reply, begin: int, clock: Clock) -> None:
    """The answer is the file from ``begin`` on.

    Raises:
        JobError: It is no answer to use.
        TransientError: It is another file, or all of it again: the copy is begun anew.
    """
    if reply.status not in (_OK, _PARTIAL):
        raise unexpected_status(reply.status, reply.headers, now=clock.now())
    expected = _PARTIAL if begin else _OK
    if reply.status != expected or (begin and not reply.headers.get("Content-Range", "").startswith(f"bytes {begin}-")):
        raise _BeginAnewError(f"{reply.target.origin} does not go on at byte {begin}", code="source.changed")


class _BeginAnewError(TransientError):
    """The server cannot go on where the connection broke."""
