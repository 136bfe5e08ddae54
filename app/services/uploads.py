"""Uploads: a client sends a file straight to S3, by one presigned PUT or in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain import places
from app.domain.artifacts import Upload
from app.domain.errors import (
    ConflictError,
    InvalidRequestError,
    JobError,
    PermanentError,
    Problem,
    TransientError,
    UnavailableError,
)
from app.domain.ports import Clock, ObjectInfo, ObjectRef, ObjectStore
from app.persistence import uploads
from app.persistence.sessions import Sessions
from app.services.ids import new_id
from config.settings import Settings

SINGLE_PUT_BYTES: Final = 100 * 10**6
"""Larger files go in parts: a part that breaks off is sent again, not the whole file."""
LEAST_PART_BYTES: Final = 16 * 2**20
S3_LEAST_PART_BYTES: Final = 5 * 2**20
"""Of every part but the last."""
MOST_PARTS: Final = 1_000
"""Of one upload: its URLs make one answer. S3's own limit is 10,000."""
MOST_BYTES: Final = 5 * 10**12
MAX_FILENAME_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """How to send a file.

    Args:
        s3_key: For a job's config; relative to the tenant's root.
        url: Where one PUT of the whole file goes; ``None`` for one in parts.
        part_urls: Where part 1, 2, … go, each by a PUT; empty for a single PUT.
        part_bytes: Size of every part but the last; ``None`` when the client chooses, at least 5 MiB.
        expires_at: When the URLs end.
    """

    upload: Upload
    s3_key: str
    url: str | None
    part_urls: tuple[str, ...]
    part_bytes: int | None
    expires_at: datetime


class Uploads:
    """The use cases of uploads."""

    def __init__(self, sessions: Sessions, objects: ObjectStore, settings: Settings, clock: Clock) -> None:
        self._sessions = sessions
        self._objects = objects
        self._settings = settings
        self._clock = clock

    def create(
        self,
        tenant: str,
        *,
        filename: str,
        created_by: str,
        size_bytes: int | None = None,
        parts: int | None = None,
        content_type: str | None = None,
    ) -> Ticket:
        """Prepare an upload; the file goes to ``<prefix>/<uuid>_<safe filename>``.

        Args:
            filename: As the client calls it; 1 to 1,000 characters.
            size_bytes: When known, and then no other is taken; over 100 MB the upload is in parts.
            parts: How many parts the client wants, 1 to 1,000; fewer when the size does not fill them.
            content_type: When known; a single PUT must then send this header.

        Raises:
            InvalidRequestError: A value does not fit.
            UnavailableError: S3 is away.
        """
        _check(filename, size_bytes, parts)
        upload_uuid = new_id()
        ref = places.place(
            tenant,
            None,
            places.uploaded_key(self._settings.s3_upload_file_path_prefix, upload_uuid, filename),
            own_bucket=self._settings.s3_bucket,
            allowed=(),
        )
        ttl_s = self._settings.upload_ttl_s
        expires_at = self._clock.now() + timedelta(seconds=ttl_s)
        count, part_bytes = _plan(size_bytes, parts)
        upload_id: str | None = None
        part_urls: list[str] = []
        url: str | None = None
        if count is None:
            url = self._objects.presign_put(ref, ttl_s=ttl_s, content_type=content_type, size_bytes=size_bytes)
        else:
            upload_id, part_urls = self._start_in_parts(ref, _sizes(size_bytes, count, part_bytes), ttl_s, content_type)
        with self._sessions.begin() as session:
            upload = uploads.add(
                session,
                tenant,
                id=upload_uuid,
                ref=ref,
                filename=filename,
                upload_id=upload_id,
                size_bytes=size_bytes,
                content_type=content_type,
                created_by=created_by,
            )
        return Ticket(upload, places.relative_key(tenant, ref), url, tuple(part_urls), part_bytes, expires_at)

    def get(self, tenant: str, upload_id: UUID) -> tuple[Upload, ObjectInfo | None]:
        """An upload and its object, ``None`` while the object is not there.

        Raises:
            NotFoundError: The tenant has none of this id.
            UnavailableError: S3 is away.
        """
        with self._sessions.begin() as session:
            upload = uploads.get(session, tenant, upload_id)
        try:
            return upload, self._objects.head(upload.ref)
        except TransientError as error:
            raise UnavailableError(error.detail) from error
        except JobError as error:
            if error.code != "s3.not_found":
                raise
            return upload, None

    def complete(
        self, tenant: str, upload_id: UUID, parts: Sequence[Mapping[str, object]]
    ) -> tuple[Upload, ObjectInfo]:
        """Join the parts of an upload; doing it again answers the same.

        Args:
            parts: ``{"PartNumber": 1, "ETag": "…"}`` for each part, as S3 answered its PUT.

        Raises:
            NotFoundError: The tenant has no upload of this id.
            ConflictError: The upload is one by a single PUT.
            InvalidRequestError: S3 does not hold these parts; ``upload.mismatch``: joined, they are not what was
                announced, and are removed.
            UnavailableError: S3 is away.
        """
        with self._sessions.begin() as session:
            upload = uploads.get(session, tenant, upload_id)
        if upload.upload_id is None:
            raise ConflictError(f"upload {upload_id} is one by a single PUT and needs no completion")
        try:
            info = self._objects.complete_multipart(upload.ref, upload.upload_id, _checked(parts))
        except TransientError as error:
            raise UnavailableError(error.detail) from error
        except JobError as error:
            raise InvalidRequestError(
                f"the parts cannot be joined: {error.detail}",
                code="upload.parts_invalid",
                problems=(Problem("/parts", "expected the number and ETag of every part that was sent"),),
            ) from error
        try:
            refuse_other(self._objects, upload, info)
        except PermanentError as error:
            raise InvalidRequestError(
                error.detail, code=error.code, hint=error.hint, problems=(Problem("/parts", error.detail),)
            ) from None
        with self._sessions.begin() as session:
            return uploads.complete(session, tenant, upload_id), info

    def _start_in_parts(
        self, ref: ObjectRef, parts: Sequence[int | None], ttl_s: int, content_type: str | None
    ) -> tuple[str, list[str]]:
        try:
            return self._objects.start_presigned_multipart(ref, parts=parts, ttl_s=ttl_s, content_type=content_type)
        except TransientError as error:
            raise UnavailableError(error.detail) from error


def _check(filename: str, size_bytes: int | None, parts: int | None) -> None:
    problems = []
    if not 1 <= len(filename) <= MAX_FILENAME_CHARACTERS or "\0" in filename or not filename.isprintable():
        problems.append(
            Problem("/filename", f"expected 1 to {MAX_FILENAME_CHARACTERS} printable characters, got {len(filename)}")
        )
    if size_bytes is not None and not 0 <= size_bytes <= MOST_BYTES:
        problems.append(Problem("/size_bytes", f"expected 0 to {MOST_BYTES}, got {size_bytes}"))
    if parts is not None and not 1 <= parts <= MOST_PARTS:
        problems.append(Problem("/parts", f"expected 1 to {MOST_PARTS}, got {parts}"))
    if problems:
        raise InvalidRequestError("the upload cannot be prepared", code="upload.invalid", problems=tuple(problems))


def _plan(size_bytes: int | None, parts: int | None) -> tuple[int | None, int | None]:
    """How many parts, and the bytes of every part but the last (whole MiB, ``None`` when the size is unknown).

    No number of parts means a single PUT.
    """
    if size_bytes is None:
        return parts, None
    if parts is None and size_bytes <= SINGLE_PUT_BYTES:
        return None, None
    least = LEAST_PART_BYTES if parts is None else S3_LEAST_PART_BYTES
    wanted = max(least, -(-size_bytes // (parts or MOST_PARTS)))
    part_bytes = -(-wanted // 2**20) * 2**20
    return max(1, -(-size_bytes // part_bytes)), part_bytes


def _sizes(size_bytes: int | None, count: int, part_bytes: int | None) -> list[int | None]:
    """The bytes of each part; ``None`` where the client chooses."""
    if size_bytes is None or part_bytes is None:
        return [None] * count
    return [*[part_bytes] * (count - 1), size_bytes - (count - 1) * part_bytes]


def refuse_other(objects: ObjectStore, upload: Upload, info: ObjectInfo) -> None:
    """Remove an object that is not what its upload announced: S3 servers differ in what they refuse themselves.

    Raises:
        PermanentError: ``upload.mismatch``, with what was expected and what came.
    """
    said = upload.mismatch(info)
    if said is None:
        return
    # What cannot be removed now is refused again at its next use.
    with suppress(JobError):
        objects.delete([upload.ref])
    raise PermanentError(f"the file of upload {upload.id} is not the one announced: {said}", code="upload.mismatch")


def _checked(parts: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    problems = [
        Problem(f"/parts/{position}", "expected PartNumber, an integer, and ETag, text")
        for position, part in enumerate(parts)
        if type(part.get("PartNumber")) is not int or not isinstance(part.get("ETag"), str)
    ]
    if not parts:
        problems.append(Problem("/parts", "expected at least one part, got none"))
    if problems:
        raise InvalidRequestError("the parts cannot be read", code="upload.parts_invalid", problems=tuple(problems))
    return [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
