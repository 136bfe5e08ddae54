"""What jobs on tables need of the place they run in."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.job_types import JobContext
from app.domain.jobs import Signals
from app.domain.ports import Clock, ObjectStore
from app.persistence.sessions import Sessions
from config.settings import Settings


class TableContext(JobContext, Protocol):
    """What a job that reads and writes tables needs of the place it runs in."""

    @property
    def sessions(self) -> Sessions:
        """Sessions of the worker slot."""
        ...

    def heed(self, signals: Signals) -> None:
        """Take note of what a guarded write was told."""
        ...


class ImportContext(TableContext, Protocol):
    """What an import needs of the place it runs in."""

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        ...

    @property
    def objects(self) -> ObjectStore:
        """S3."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    def tell(self) -> None:
        """Say that the job is alive where it has no number to show; raises when it is to stop."""
        ...

    def build_indexes_after(self, session: Session, table: str, *, after: UUID) -> None:
        """Have a job of the system build what a table lacks of its indexes, when another is over in whatever way.

        It is stored with the session's transaction.
        """
        ...
