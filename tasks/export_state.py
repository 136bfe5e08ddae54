"""What an export keeps in its checkpoint: its snapshot, and how far each of its files is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from app.dataplane.export import Snapshot, Written
from app.dataplane.export_columns import KeyRange


@dataclass(slots=True)
class FileState:
    """One file: nothing written yet, or an upload that is begun, or one whose parts are all there, or joined ones.

    Args:
        upload_id: Of the upload that may be joined.
        etags: Its parts, once all are sent; only such an upload is ever joined.
        joined: The file stands under its key.
    """

    key: str
    within: KeyRange
    upload_id: str | None = None
    etags: list[dict[str, object]] | None = None
    rows: int = 0
    written: Written | None = None
    joined: bool = False

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> FileState:
        """The inverse of ``asdict``."""
        bounds = {name: None if one is None else tuple(one) for name, one in kept["within"].items()}
        written = kept["written"]
        return cls(
            **{**kept, "within": KeyRange(**bounds), "written": None if written is None else Written.from_json(written)}
        )


@dataclass(slots=True)
class ExportState:
    """A whole export.

    Args:
        stem: What the files' keys begin with.
        manifest: The manifest's key.
        snapshot: What all of its files show.
        asked: A hash of the config that they are written by.
        fingerprint: Of the table in that snapshot; ``None`` for an export that does not resume.
        left_out: Invalid rows that the query found.
        restarted: How often finished files were given up because the table had changed.
        given_up: Their keys, until they are removed.
        finished_at: When the last file was joined.
        elsewhere: The files are in a folder or in a bucket of the tenant's own.
        delivered: How many of them, and of the manifest, a sink of another package has taken.
    """

    bucket: str
    stem: str
    manifest: str
    snapshot: Snapshot
    asked: str
    files: list[FileState] = field(default_factory=list)
    fingerprint: str | None = None
    left_out: int | None = None
    restarted: int = 0
    given_up: list[str] = field(default_factory=list)
    finished_at: str | None = None
    elsewhere: bool = False
    delivered: int = 0

    @property
    def rows(self) -> int:
        """Of all files that are written."""
        return sum(one.rows for one in self.files)

    @property
    def plain_bytes(self) -> int:
        """Of all files that are written, before compression."""
        return sum(one.written.plain_bytes for one in self.files if one.written is not None)

    def as_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        kept = asdict(self)
        return {**kept, "snapshot": {"id": self.snapshot.id, "taken_at": self.snapshot.taken_at.isoformat()}}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> ExportState:
        """The inverse of ``as_json``."""
        snapshot = Snapshot(kept["snapshot"]["id"], datetime.fromisoformat(kept["snapshot"]["taken_at"]))
        files = [FileState.from_json(one) for one in kept["files"]]
        return cls(**{**kept, "snapshot": snapshot, "files": files})
