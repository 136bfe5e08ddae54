"""Where an export's files go, and what they are called."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final
from uuid import UUID

from app.domain import places
from app.domain.errors import JobError
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.sinks import S3Sink
from app.persistence import export_names, leftovers
from app.services.leftovers import give_up
from app.services.sinks import final_refusals
from app.storage.folders import FolderStore
from app.storage.scope import resolve
from tasks.context import RunContext
from tasks.open_sinks import open_bucket

MANIFEST_SUFFIX: Final = ".manifest.json"
_MAX_NUMBER: Final = 1_000


class Place:
    """A bucket of ours, a folder below the installation's root for exports, or a bucket of the tenant's own.

    Args:
        stem: The key without its suffix, relative to the tenant's place; ``None`` for one of the job's id.
    """

    def __init__(
        self,
        job: RunContext,
        *,
        stem: str | None,
        suffix: str,
        bucket: str | None,
        folder: str | None,
        sink: str | None = None,
    ) -> None:
        self.elsewhere = folder is not None or sink is not None
        self._job = job
        self._suffix = suffix
        self._is_chosen = stem is not None
        self._sink: S3Sink | None = None
        prefix = job.settings.s3_upload_file_path_prefix
        relative = stem or (str(job.id) if self.elsewhere else places.exported_key(prefix, job.id, ""))
        self.store: ObjectStore | FolderStore
        if sink is not None:
            self._sink, self.store = open_bucket(job, sink)
            ref = ObjectRef(self._sink.bucket, places.below(self._sink.prefix, relative))
        elif folder is not None:
            self.store = FolderStore(_root(job))
            ref = ObjectRef("", f"{job.job.tenant}/{folder}/{relative}")
        else:
            self.store = job.objects
            ref = resolve(job.settings, job.job.tenant, bucket, relative)
        self.bucket, self._stem = ref.bucket, ref.key

    def refusals(self) -> AbstractContextManager[None]:
        """What a bucket of the tenant's own refuses is refused for good."""
        return nullcontext() if self._sink is None else final_refusals(f"sink {self._sink.name!r}")

    def free_stem(self, *, in_parts: bool, numbered: bool) -> str:
        """The name that the files share: from now on this job's alone, and there is nothing under it yet.

        Raises:
            JobError: ``export.key_taken``.
        """
        for number in range(1, _MAX_NUMBER + 1):
            tried = self._stem if number == 1 else f"{self._stem}-{number}"
            if self._is_free(tried, in_parts=in_parts):
                return tried
            if not numbered:
                break
        taken = ObjectRef(self.bucket, self.keys(tried, 1 if in_parts else None)[0])
        raise JobError(
            f"there is a file {places.relative_key(self._job.job.tenant, taken)!r} already, or a job is writing it",
            code="export.key_taken",
        )

    def take(self, stem: str) -> bool:
        """Make a name this job's own, unless one that is not over has it; a name of a job's id is nobody else's.

        Of a job that is over nothing stays under the name but what it has shown.
        """
        return not self._is_chosen or self._taken_from(stem) is not None

    def _taken_from(self, stem: str) -> UUID | None:
        """Whose name it was before it became this job's; ``None`` when it could not be taken."""
        with self._job.sessions.begin() as session:
            holder = export_names.claim(session, self._name_of, stem, self._job.id)
            if holder == self._job.id:
                return holder
            if export_names.is_active(session, holder):
                return None
            left = leftovers.hold(session, holder)
            if left is not None:
                give_up(self.store, session, left)
            export_names.hand_over(session, self._name_of, stem, self._job.id)
            return holder

    def _is_free(self, stem: str, *, in_parts: bool) -> bool:
        former = self._taken_from(stem) if self._is_chosen else self._job.id
        first = ObjectRef(self.bucket, self.keys(stem, 1 if in_parts else None)[0])
        if former is None or self.holds(first) or self.holds(self.manifest(stem, in_parts=in_parts)):
            return False
        if former != self._job.id:
            with self._job.sessions.begin() as session:
                export_names.forget_files(session, former, self.bucket, stem)
        return True

    @property
    def _name_of(self) -> str:
        """The bucket, whichever sinks lead there."""
        return self.bucket if self._sink is None else f"{self._sink.endpoint or 'aws'} {self.bucket}"

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
