"""Where an export's files go, and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from app.domain import places
from app.domain.errors import JobError
from app.domain.ports import ObjectRef, ObjectStore
from app.storage.folders import FolderStore
from app.storage.scope import resolve
from tasks.context import RunContext

MANIFEST_SUFFIX: Final = ".manifest.json"
_MAX_NUMBER: Final = 1_000


class Place:
    """A bucket, or a folder below the installation's root for exports.

    Args:
        stem: The key without its suffix, relative to the tenant's place; ``None`` for one of the job's id.
    """

    def __init__(
        self, job: RunContext, *, stem: str | None, suffix: str, bucket: str | None, folder: str | None
    ) -> None:
        self.in_folder = folder is not None
        self._job = job
        self._suffix = suffix
        prefix = job.settings.s3_upload_file_path_prefix
        relative = stem or (str(job.id) if folder is not None else places.exported_key(prefix, job.id, ""))
        self.store: ObjectStore | FolderStore
        if folder is None:
            self.store = job.objects
            ref = resolve(job.settings, job.job.tenant, bucket, relative)
        else:
            self.store = FolderStore(_root(job))
            ref = ObjectRef("", f"{job.job.tenant}/{folder}/{relative}")
        self.bucket, self._stem = ref.bucket, ref.key

    def free_stem(self, *, in_parts: bool, numbered: bool) -> str:
        """The name that the files share, one under which there is nothing yet.

        Raises:
            JobError: ``export.key_taken``.
        """
        for number in range(1, _MAX_NUMBER + 1):
            tried = self._stem if number == 1 else f"{self._stem}-{number}"
            first = self.keys(tried, 1 if in_parts else None)[0]
            taken = ObjectRef(self.bucket, first)
            if not self.holds(taken) and not self.holds(self.manifest(tried, in_parts=in_parts)):
                return tried
            if not numbered:
                break
        raise JobError(
            f"there is a file {places.relative_key(self._job.job.tenant, taken)!r} already",
            code="export.key_taken",
        )

    def keys(self, stem: str, parts: int | None, *, restarted: int = 0) -> list[str]:
        """The files' keys; one file (``parts`` is ``None``) bears no number.

        Files of an export that began anew have names of their own: a former holder that still removes the old ones
        removes no other.
        """
        if parts is None:
            return [stem + self._suffix]
        again = f"-r{restarted}" if restarted else ""
        return [f"{stem}{again}-{number:05}{self._suffix}" for number in range(1, parts + 1)]

    def manifest(self, stem: str, *, in_parts: bool) -> ObjectRef:
        """The manifest's place, beside the files."""
        return ObjectRef(self.bucket, stem + ("" if in_parts else self._suffix) + MANIFEST_SUFFIX)

    def holds(self, ref: ObjectRef, size_bytes: int | None = None) -> bool:
        """Whether there is a file, of this size if one is given."""
        try:
            info = self.store.head(ref)
        except JobError as error:
            if error.code != "s3.not_found":
                raise
            return False
        return size_bytes in (None, info.size_bytes)


def _root(job: RunContext) -> Path:
    root = job.settings.export_root
    if root is None or not root.is_dir():
        raise JobError(
            "this worker has no folder for exports",
            code="folder.refused",
            hint="Set HAULIER_EXPORT_ROOT to a folder that is there, on every machine with workers.",
        )
    return root
