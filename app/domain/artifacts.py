"""Files of ours in S3, and files that clients bring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.ports import ObjectInfo, ObjectRef


class ArtifactKind(StrEnum):
    """What a file is to its job."""

    EXPORT = "export"
    MANIFEST = "manifest"
    SOURCE = "source"
    """Our copy of what an import reads; no download."""
    LOG = "log"
    """This and the next two are made when they are asked for."""
    REPORT = "report"
    FAILED_ROWS = "failed_rows"
    FILE = "file"
    """Whatever the job's type made of it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a job made.

    Args:
        name: As a download is called.
        sha256: Hex, of the stored bytes.
        rows: Data rows in it; ``None`` where it has none to count.
        expires_at: When it is removed; ``None`` for never.
        removed_at: When its bytes were removed; its row stays as long as its job's.
        sealed_bytes: Of the stored object, when it is encrypted; the other facts are those of what is downloaded.
    """

    id: UUID
    job_id: UUID
    tenant: str
    kind: ArtifactKind
    name: str
    content_type: str
    ref: ObjectRef
    size_bytes: int
    sha256: str | None = None
    rows: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    removed_at: datetime | None = None
    sealed_bytes: int | None = None

    def is_expired(self, at: datetime) -> bool:
        """Whether its time is over, be its bytes removed already or not."""
        return self.removed_at is not None or (self.expires_at is not None and self.expires_at <= at)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client brings.

    Args:
        filename: As the client calls it.
        upload_id: S3's, for one in parts.
        size_bytes: As the client announced it; ``None`` when it did not.
        content_type: As the client announced it.
        completed_at: When its parts were joined; of a single PUT, which we do not see, when its file was found.
    """

    id: UUID
    tenant: str
    ref: ObjectRef
    filename: str
    upload_id: str | None
    created_by: str
    created_at: datetime
    completed_at: datetime | None = None
    size_bytes: int | None = None
    content_type: str | None = None

    def mismatch(self, info: ObjectInfo) -> str | None:
        """How what arrived differs from what was announced; ``None`` when it does not."""
        if self.size_bytes is not None and info.size_bytes != self.size_bytes:
            return f"expected {self.size_bytes} bytes, got {info.size_bytes}"
        # The type of one in parts was set when it was begun, as announced; not every server keeps that.
        if self.upload_id is not None or self.content_type is None or info.content_type is None:
            return None
        if same_type(self.content_type, info.content_type):
            return None
        return f"expected content type {self.content_type!r}, got {info.content_type!r}"


def same_type(one: str, other: str) -> bool:
    """Whether two content types are the same, whatever their parameters."""
    return one.partition(";")[0].strip().lower() == other.partition(";")[0].strip().lower()
