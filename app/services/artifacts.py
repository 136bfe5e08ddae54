"""Artifacts: the files that jobs made, with download links made on demand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.artifacts import Artifact
from app.domain.places import relative_key
from app.domain.ports import Clock, ObjectStore
from app.persistence import artifacts, jobs
from app.persistence.sessions import Sessions
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact and a link to it.

    Args:
        s3_key: Relative to the tenant's root.
        url: Downloads it without a key until ``url_expires_at``; never stored.
    """

    artifact: Artifact
    s3_key: str
    url: str
    url_expires_at: datetime


class Artifacts:
    """The use cases of artifacts."""

    def __init__(self, sessions: Sessions, objects: ObjectStore, settings: Settings, clock: Clock) -> None:
        self._sessions = sessions
        self._objects = objects
        self._settings = settings
        self._clock = clock

    def of_job(self, tenant: str, job_id: UUID) -> list[Download]:
        """A job's artifacts by name, each with a fresh link.

        Raises:
            NotFoundError: The tenant has no such job.
        """
        with self._sessions.begin() as session:
            jobs.get(session, tenant, job_id)
            found = artifacts.of_job(session, tenant, job_id)
        return [self._download(artifact) for artifact in found]

    def get(self, tenant: str, artifact_id: UUID) -> Download:
        """One artifact with a fresh link.

        Raises:
            NotFoundError: The tenant has no such artifact.
        """
        with self._sessions.begin() as session:
            artifact = artifacts.get(session, tenant, artifact_id)
        return self._download(artifact)

    def remove_expired(self, *, limit: int = 1_000) -> int:
        """Delete artifacts whose time is over, files first: what fails half-way is found again.

        Args:
            limit: Artifacts in one call, the oldest first.

        Returns:
            How many went; as many as ``limit`` means that more may wait.

        Raises:
            TransientError: S3 is away.
        """
        with self._sessions.begin() as session:
            over = artifacts.expired(session, at=self._clock.now(), limit=limit)
        self._objects.delete([artifact.ref for artifact in over])
        with self._sessions.begin() as session:
            for artifact in over:
                artifacts.remove(session, artifact.tenant, artifact.id)
        return len(over)

    def _download(self, artifact: Artifact) -> Download:
        ttl_s = self._settings.presign_ttl_s
        url = self._objects.presign_get(artifact.ref, ttl_s=ttl_s)
        expires_at = self._clock.now() + timedelta(seconds=ttl_s)
        return Download(artifact, relative_key(artifact.tenant, artifact.ref), url, expires_at)
