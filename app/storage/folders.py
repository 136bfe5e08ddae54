"""Exports into a folder of the installation's own: the same steps as S3's uploads, on files below one root."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from app.domain.errors import JobError
from app.domain.ports import ObjectInfo, ObjectRef

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FILE_MODE: Final = 0o640


class FolderUpload:
    """A file being written under a name that no reader looks for (``domain.ports.ObjectUpload``)."""

    def __init__(self, store: FolderStore, ref: ObjectRef, upload_id: str, file: int) -> None:
        self.upload_id = upload_id
        self.size_bytes = 0
        self._store = store
        self._ref = ref
        self._file = os.fdopen(file, "wb")

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append. Raises JobError when the disk is full or broken."""
        with _told(self._ref):
            self._file.write(data)
        self.size_bytes += len(data)

    def finish_parts(self) -> list[dict[str, object]]:
        """Have everything on the disk."""
        with _told(self._ref):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return [{"PartNumber": 1, "ETag": str(self.size_bytes)}]

    def complete(self, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Give the file its name."""
        return self._store.complete_multipart(self._ref, self.upload_id, parts)

    def abort(self) -> None:
        """Remove what is written; never raises."""
        with suppress(OSError):
            self._file.close()
        with suppress(JobError):
            self._store.abort_upload(self._ref, self.upload_id)


class FolderStore:
    """Files below ``root``. No step follows a symbolic link; an ``ObjectRef``'s key is the path, its bucket is empty.

    Methods raise JobError ``folder.refused`` for what the file system does not allow.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self, ref: ObjectRef) -> ObjectInfo:
        """Size; JobError ``s3.not_found``, as S3 says it, when there is no such file."""
        with self._folder(ref) as (folder, name):
            try:
                size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            except FileNotFoundError:
                raise JobError(f"there is no file {ref.key!r}", code="s3.not_found") from None
        return ObjectInfo(size, str(size))

    def put(self, ref: ObjectRef, body: bytes, *, content_type: str, filename: str | None = None) -> ObjectInfo:
        """Write a small file whole; readers see the old one or the new one."""
        upload = self.start_upload(ref, content_type=content_type, filename=filename)
        try:
            upload.write(body)
            return upload.complete(upload.finish_parts())
        finally:
            upload.abort()

    def start_upload(self, ref: ObjectRef, *, content_type: str, filename: str | None = None) -> FolderUpload:  # noqa: ARG002 - the port's
        """Begin a file; nothing is visible under its name before it is completed."""
        with self._folder(ref) as (folder, name):
            upload_id = f".{uuid4().hex}.{name[:100]}"
            return FolderUpload(self, ref, upload_id, os.open(upload_id, _NEW_FILE, _FILE_MODE, dir_fd=folder))

    def abort_upload(self, ref: ObjectRef, upload_id: str) -> None:
        """Remove an unfinished file; one that is gone is fine."""
        with self._folder(ref) as (folder, _), suppress(FileNotFoundError):
            os.unlink(upload_id, dir_fd=folder)

    def complete_multipart(self, ref: ObjectRef, upload_id: str, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Give a finished file its name. Doing it again is safe; a file that was removed is ``s3.no_such_upload``."""
        with self._folder(ref) as (folder, name):
            try:
                os.rename(upload_id, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                with suppress(JobError):
                    if (info := self.head(ref)).etag == parts[0]["ETag"]:
                        return info
                raise JobError(f"what was written of {ref.key!r} is gone", code="s3.no_such_upload") from None
        return self.head(ref)

    def delete(self, refs: Sequence[ObjectRef]) -> None:
        """Remove files; missing ones are fine."""
        for ref in refs:
            with self._folder(ref) as (folder, name), suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _folder(self, ref: ObjectRef) -> Iterator[tuple[int, str]]:
        """The folder of ``ref``, made if it is missing and opened step by step, and the file's name in it."""
        *steps, name = ref.key.split("/")
        if any(step in ("", ".", "..") or "\0" in step for step in (*steps, name)):
            raise JobError(f"a path has no empty, '.' or '..' step, got {ref.key!r}", code="folder.refused")
        with _told(ref):
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for step in steps:
                    with suppress(FileExistsError):
                        os.mkdir(step, 0o750, dir_fd=folder)
                    inner = os.open(step, _DIRECTORY, dir_fd=folder)
                    os.close(folder)
                    folder = inner
                yield folder, name
            finally:
                os.close(folder)


@contextmanager
def _told(ref: ObjectRef) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            f"{ref.key!r} cannot be written below HAULIER_EXPORT_ROOT: {error.strerror}",
            code="folder.refused",
        ) from error
