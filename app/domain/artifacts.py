"""Files of ours in S3, and files that clients bring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.ports import ObjectRef


class ArtifactKind(StrEnum):
    """What a file is to its job."""

    EXPORT = "export"
    MANIFEST = "manifest"
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


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client brings.

    Args:
        filename: As the client calls it.
        upload_id: S3's, for one in parts.
        completed_at: When its parts were joined; ``None`` for one by a single PUT, which we do not see.
    """

    id: UUID
    tenant: str
    ref: ObjectRef
    filename: str
    upload_id: str | None
    created_by: str
    created_at: datetime
    completed_at: datetime | None = None
