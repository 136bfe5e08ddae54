"""Downloads through us: any range of a file, decrypted where it is encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final
from uuid import UUID

from app.domain.artifacts import Artifact
from app.domain.errors import GoneError, HaulierError, JobError, TransientError, UnavailableError
from app.domain.ports import Clock, ObjectInfo, ObjectReader, ObjectRef, ObjectStore
from app.persistence import artifacts
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys
from app.security.sealed_files import SealedFile, open_sealed
from app.services.links import Link, Links
from config.settings import Settings

_PIECE_BYTES: Final = 256 * 1024
_TEXTS: Final = ("text/", "application/json", "application/x-ndjson")


class Downloads:
    """Makes links to files and reads what they lead to.

    Args:
        keys: Those that files may have been encrypted under.
    """

    def __init__(
        self, sessions: Sessions, objects: ObjectStore, settings: Settings, clock: Clock, *, keys: MasterKeys
    ) -> None:
        self._sessions = sessions
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._keys = keys
        self._links = Links(settings, clock)

    def link(self, artifact: Artifact) -> Link:
        """A fresh link to a file; one that S3 itself answers where it can.

        What is encrypted can be read through us alone, and a CDN stands before us, not before S3.
        """
        if artifact.sealed_bytes is not None or self._settings.cdn_base_url is not None:
            signed = self._links.sign(artifact.tenant, path_of(artifact.id))
            if signed is not None:
                return signed
        url = self._objects.presign_get(artifact.ref, ttl_s=self._settings.presign_ttl_s)
        return Link(url, self._links.expires_at)

    def get(self, tenant: str, artifact_id: UUID) -> Artifact:
        """A file that is there.

        Raises:
            NotFoundError: The tenant has none of this id.
            GoneError: Its time is over.
        """
        with self._sessions.begin() as session:
            artifact = artifacts.get(session, tenant, artifact_id)
        if artifact.is_expired(self._clock.now()):
            over = artifact.expires_at or artifact.removed_at
            raise GoneError(
                f"file {artifact.name!r} was kept until {over.isoformat() if over else 'now'}", code="artifact.expired"
            )
        return artifact

    def read(self, artifact: Artifact, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of a file; the first of them are read, and checked, before this returns.

        Raises:
            JobError: ``file.tampered``: it was encrypted and is not what was written; ``artifact.lost``.
            UnavailableError: S3 is away.
        """
        pieces = self._pieces(artifact, start, artifact.size_bytes if end is None else end)
        try:
            first = next(pieces, b"")
        except TransientError as error:
            raise UnavailableError(error.detail) from error
        except JobError as error:
            if error.code != "s3.not_found":
                raise
            raise GoneError(f"file {artifact.name!r} is no longer in the bucket", code="artifact.lost") from error
        return _with(first, pieces)

    def inline(self, artifact: Artifact) -> str | None:
        """A small text whole; ``None`` for one that is large, packed, gone or out of reach."""
        is_text = artifact.content_type.startswith(_TEXTS)
        if not is_text or artifact.size_bytes > self._settings.inline_result_bytes:
            return None
        try:
            return b"".join(self.read(artifact)).decode()
        except (HaulierError, UnicodeDecodeError):
            return None

    def _pieces(self, artifact: Artifact, start: int, end: int) -> Iterator[bytes]:
        with ExitStack() as open_now:
            if artifact.sealed_bytes is None:
                reader = open_now.enter_context(self._objects.open(artifact.ref, offset=start))
                _check_size(artifact, reader.info, artifact.size_bytes)
                yield from _up_to(reader, end - start)
                return
            sealed, info = self._header(artifact, artifact.sealed_bytes)
            yield from sealed.read(
                lambda offset: open_now.enter_context(
                    self._objects.open(artifact.ref, offset=offset, if_match=info.etag)
                ),
                start,
                end,
            )

    def _header(self, artifact: Artifact, sealed_bytes: int) -> tuple[SealedFile, ObjectInfo]:
        with self._objects.open(artifact.ref) as reader:
            _check_size(artifact, reader.info, sealed_bytes)
            context = context_of(artifact.tenant, artifact.job_id, artifact.ref)
            return open_sealed(self._keys, reader, sealed_bytes=sealed_bytes, context=context), reader.info


def path_of(artifact_id: UUID) -> str:
    """Where a file is downloaded through us."""
    return f"/v1/artifacts/{artifact_id}/content"


def context_of(tenant: str, job_id: UUID, ref: ObjectRef) -> str:
    """Whose file it is: what an encrypted file must say of itself."""
    return f"{tenant}/{job_id}/{ref.key.rsplit('/', 1)[-1]}"


def _check_size(artifact: Artifact, info: ObjectInfo, expected: int) -> None:
    if info.size_bytes != expected:
        raise JobError(
            f"file {artifact.name!r} was written with {expected} bytes, S3 holds {info.size_bytes}",
            code="file.tampered",
        )


def _up_to(reader: ObjectReader, left: int) -> Iterator[bytes]:
    while left and (piece := reader.read(min(_PIECE_BYTES, left))):
        left -= len(piece)
        yield piece


def _with(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
