"""Artifacts: the files that jobs made, with download links made on demand."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.domain.artifacts import Artifact
from app.domain.places import relative_key
from app.domain.ports import Clock, ObjectStore
from app.persistence import artifacts, jobs
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys
from app.services.downloads import Downloads
from app.services.links import Link
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Download:
    """An artifact and a link to it.

    Args:
        s3_key: Relative to the tenant's root.
        link: Downloads it without a key; never stored. ``None`` when the artifact is expired.
    """

    artifact: Artifact
    s3_key: str
    link: Link | None

    @property
    def url(self) -> str | None:
        """Where the link leads."""
        return None if self.link is None else self.link.url


class Artifacts:
    """The use cases of artifacts."""

    def __init__(self, sessions: Sessions, objects: ObjectStore, settings: Settings, clock: Clock) -> None:
        self._sessions = sessions
        self._objects = objects
        self._clock = clock
        self._downloads = Downloads(sessions, objects, settings, clock, keys=MasterKeys(settings.master_keys))

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
        """Delete the files of artifacts whose time is over, then say so: what fails half-way is found again.

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
        link = None if artifact.is_expired(self._clock.now()) else self._downloads.link(artifact)
        return Download(artifact, relative_key(artifact.tenant, artifact.ref), link)
