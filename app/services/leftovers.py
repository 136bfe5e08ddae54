"""Clean-up: what uploads and exports that broke off have left in the bucket."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain import places
from app.domain.artifacts import Upload
from app.domain.errors import JobError
from app.domain.ports import Clock, ObjectRef, ObjectStore
from app.persistence import artifacts, export_names, leftovers, uploads
from app.persistence.leftovers import GivenUp
from app.persistence.sessions import Sessions
from app.services.uploads import refuse_other
from config.settings import Settings

AT_ONCE: Final = 1_000


class Bucket(Protocol):
    """What holds an export's files."""

    def abort_upload(self, ref: ObjectRef, upload_id: str) -> None:
        """Drop an unfinished upload; unknown ids are fine."""
        ...

    def delete(self, refs: Sequence[ObjectRef]) -> None:
        """Remove files; missing ones are fine."""
        ...


class Leftovers:
    """Removes what nobody will come back for. Every step may be broken off and is done again the next time.

    Nothing is touched that is younger than ``leftover_ttl_s``, nor anything under a name that Haulier did not choose
    and no job of it tells of: others may keep files in the same bucket.
    """

    def __init__(self, sessions: Sessions, objects: ObjectStore, settings: Settings, clock: Clock) -> None:
        self._sessions = sessions
        self._objects = objects
        self._settings = settings
        self._clock = clock

    def end_abandoned_uploads(self) -> int:
        """Drop uploads whose links are long over and that never arrived; how many.

        Raises:
            TransientError: S3 is away.
        """
        before = self._before - timedelta(seconds=self._settings.upload_ttl_s)
        with self._sessions.begin() as session:
            found = uploads.abandoned(session, before=before, limit=AT_ONCE)
        return sum(self._end(upload) for upload in found)

    def _end(self, upload: Upload) -> bool:
        if upload.upload_id is not None:
            self._objects.abort_upload(upload.ref, upload.upload_id)
        # One that was joined in this moment, or whose joining was never noted, has arrived.
        arrived = self._arrived(upload)
        with self._sessions.begin() as session:
            if arrived:
                uploads.complete(session, upload.tenant, upload.id)
            else:
                uploads.remove(session, upload.tenant, upload.id)
        return not arrived

    def _arrived(self, upload: Upload) -> bool:
        """Whether its object is there; one that is not what was announced is removed."""
        try:
            refuse_other(self._objects, upload, self._objects.head(upload.ref))
        except JobError as error:
            if error.code not in {"s3.not_found", "upload.mismatch"}:
                raise
            return False
        return True

    def drop_orphaned_parts(self) -> int:
        """Drop uploads that no job and no client can join any more, with their parts; how many.

        Raises:
            TransientError: S3 is away.
        """
        late = [one for one in self._objects.unfinished(self._settings.s3_bucket) if one.begun_at <= self._before]
        with self._sessions.begin() as session:
            owners = self._owners(session, {one.ref.key for one in late})
            kept = leftovers.in_use(session, set().union(*owners.values()))
        orphaned = [one for one in late if owners[one.ref.key] and owners[one.ref.key].isdisjoint(kept)]
        for one in orphaned:
            self._objects.abort_upload(one.ref, one.upload_id)
        return len(orphaned)

    def _owners(self, session: Session, keys: Collection[str]) -> dict[str, set[UUID]]:
        """The upload or jobs that may write under each full key; none for one that is not ours."""
        prefix, bucket = self._settings.s3_upload_file_path_prefix, self._settings.s3_bucket
        stems = {key: places.stems_of(key) for key in keys}
        holders = export_names.holders(session, bucket, {stem for some in stems.values() for stem in some})
        owners = {key: {holders[stem] for stem in some if stem in holders} for key, some in stems.items()}
        for key in keys:
            if (owner := places.owner_of(prefix, key)) is not None:
                owners[key].add(owner)
        return owners

    def remove_given_up_copies(self) -> int:
        """Remove the copies of sources, of imports that ended before they had begun; of how many.

        Raises:
            TransientError: S3 is away.
        """
        with self._sessions.begin() as session:
            found = leftovers.spooling(session, before=self._before, limit=AT_ONCE)
        return sum(self._remove_copies(job_id) for job_id in found)

    def _remove_copies(self, job_id: UUID) -> bool:
        with self._sessions.begin() as session:
            job = leftovers.hold(session, job_id)
            if job is None:
                return False
            shown = {one.ref for one in artifacts.of_job(session, job.tenant, job_id)}
            folder = places.files_of(job.tenant, self._settings.s3_upload_file_path_prefix, job_id)
            keys = [key for key, _ in self._objects.list(self._settings.s3_bucket, folder)]
            refs = [ObjectRef(self._settings.s3_bucket, key) for key in keys]
            self._objects.delete([ref for ref in refs if ref not in shown])
            leftovers.forget(session, job.tenant, job_id)
        return True

    def remove_given_up_exports(self) -> int:
        """Remove the files of exports that ended without a manifest; of how many.

        Raises:
            TransientError: S3 is away.
        """
        with self._sessions.begin() as session:
            found = leftovers.given_up(session, before=self._before, limit=AT_ONCE)
        removed = 0
        for job_id in found:
            # Held while its files go: a retry waits, and then begins anew. One that comes after a crash between looks
            # whether its files are there.
            with self._sessions.begin() as session:
                export = leftovers.hold(session, job_id)
                if export is not None:
                    give_up(None if export.checkpoint.get("elsewhere", True) else self._objects, session, export)
                    removed += 1
        return removed

    @property
    def _before(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self._settings.leftover_ttl_s)


def give_up(store: Bucket | None, session: Session, export: GivenUp) -> None:
    """Remove what the checkpoint of an export that is held tells of, but for what it has shown, and forget it.

    Args:
        store: Where its files are; ``None`` leaves them, as in a folder or bucket that is its owner's to clear.
    """
    state = export.checkpoint
    if store is not None:
        shown = {one.ref for one in artifacts.of_job(session, export.tenant, export.job_id)}
        for one in state["files"]:
            if one["upload_id"] is not None:
                store.abort_upload(ObjectRef(state["bucket"], one["key"]), one["upload_id"])
        # One whose parts are all there may be joined already: that is noted only later.
        keys = [one["key"] for one in state["files"] if one["joined"] or one["etags"]]
        keys += [*state["given_up"], state["manifest"]]
        store.delete([ref for key in keys if (ref := ObjectRef(state["bucket"], key)) not in shown])
    leftovers.forget(session, export.tenant, export.job_id)
