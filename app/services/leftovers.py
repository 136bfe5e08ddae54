"""Clean-up: what uploads and exports that broke off have left in the bucket."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

from app.domain import places
from app.domain.artifacts import Upload
from app.domain.errors import JobError
from app.domain.ports import Clock, ObjectRef, ObjectStore
from app.persistence import artifacts, leftovers, uploads
from app.persistence.sessions import Sessions
from config.settings import Settings

AT_ONCE: Final = 1_000


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
        arrived = self._is_there(upload.ref)
        with self._sessions.begin() as session:
            if arrived:
                uploads.complete(session, upload.tenant, upload.id)
            else:
                uploads.remove(session, upload.tenant, upload.id)
        return not arrived

    def _is_there(self, ref: ObjectRef) -> bool:
        try:
            self._objects.head(ref)
        except JobError as error:
            if error.code != "s3.not_found":
                raise
            return False
        return True

    def drop_orphaned_parts(self) -> int:
        """Drop uploads that no job and no client can join any more, with their parts; how many.

        Raises:
            TransientError: S3 is away.
        """
        prefix = self._settings.s3_upload_file_path_prefix
        found = [
            (owner, one)
            for one in self._objects.unfinished(self._settings.s3_bucket)
            if one.begun_at <= self._before and (owner := places.owner_of(prefix, one.ref.key)) is not None
        ]
        with self._sessions.begin() as session:
            kept = leftovers.in_use(session, {owner for owner, _ in found})
        orphaned = [one for owner, one in found if owner not in kept]
        for one in orphaned:
            self._objects.abort_upload(one.ref, one.upload_id)
        return len(orphaned)

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
                    shown = {one.ref for one in artifacts.of_job(session, export.tenant, job_id)}
                    self._give_up(export.checkpoint, shown)
                    leftovers.forget(session, export.tenant, job_id)
                    removed += 1
        return removed

    def _give_up(self, state: dict[str, Any], shown: Collection[ObjectRef]) -> None:
        """Remove what an export's checkpoint tells of; files in a folder are their owner's to remove."""
        bucket = state["bucket"]
        if not bucket:
            return
        for one in state["files"]:
            if one["upload_id"] is not None:
                self._objects.abort_upload(ObjectRef(bucket, one["key"]), one["upload_id"])
        # One whose parts are all there may be joined already: that is noted only later.
        keys = [one["key"] for one in state["files"] if one["joined"] or one["etags"]] + [state["manifest"]]
        self._objects.delete([ref for key in keys if (ref := ObjectRef(bucket, key)) not in shown])

    @property
    def _before(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self._settings.leftover_ttl_s)
