"""Transactions that read a tenant's tables: read-only, with a limit of time, as a role that sees nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg2.errors
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.dataplane.query import begin_reading
from app.dataplane.tables import schema_of
from app.domain.errors import InvalidRequestError
from app.persistence import readers
from app.persistence.sessions import Sessions
from app.persistence.tables import lock_schema

log = logging.getLogger(__name__)

_NARROW_ROWS: Final = "Narrow the filter, declare an index on its columns, or run it as an export."
_NARROW_JOBS: Final = "Narrow the filter, by time or label."
_ROLE_IS_OFF = (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.InvalidParameterValue)


def reader_of(sessions: Sessions, tenant: str) -> str | None:
    """The role that reads for a tenant, whose schema is there; made if need be, ``None`` when it cannot be made."""
    schema = schema_of(tenant)
    try:
        with sessions.begin() as session:
            role = readers.name_of(session, tenant)
            if not readers.is_ready(session, role, schema):
                lock_schema(session, tenant)
                readers.prepare(session, role, schema)
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
            raise
        log.warning("reader.not_made", extra={"tenant": tenant, "error": str(error.orig).strip()})
        return None
    return role


class Reading:
    """Reads for one tenant at a time. The tenant's schema must be there, as it is once it has a table.

    Where the installation's own role may make none (it has no CREATEROLE, and nobody made the role for it), reads are
    read-only transactions of that role, which a warning says once a process and tenant.
    """

    def __init__(self, sessions: Sessions, *, timeout_s: float) -> None:
        self.sessions = sessions
        self._timeout_s = timeout_s
        self._roles: dict[str, str | None] = {}
        self._preparing = threading.Lock()

    @contextmanager
    def transaction(self, tenant: str, *, timeout_s: float | None = None) -> Iterator[Session]:
        """A transaction whose statements end after ``timeout_s`` (default: the setting's).

        Raises:
            InvalidRequestError: ``vql.timeout``.
        """
        role = self.role(tenant)
        try:
            with self.limited(timeout_s) as limit_s, self.sessions.begin() as session:
                begin_reading(session, timeout_s=limit_s, role=role)
                yield session
        except DBAPIError as error:
            if isinstance(error.orig, _ROLE_IS_OFF):
                # Somebody has taken the role or its rights away: the next transaction makes them anew.
                self._roles.pop(tenant, None)
            raise

    @contextmanager
    def of_ours(self, *, hint: str = _NARROW_JOBS) -> Iterator[Session]:
        """The same for Haulier's own tables, which the tenants' roles do not see. Errors as ``transaction``."""
        with self.limited(hint=hint) as limit_s, self.sessions.begin() as session:
            begin_reading(session, timeout_s=limit_s)
            yield session

    @contextmanager
    def limited(self, timeout_s: float | None = None, *, hint: str = _NARROW_ROWS) -> Iterator[float]:
        """How long a statement may take; within, one that was ended for it is ``vql.timeout`` with ``hint``."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            yield limit_s
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg2.errors.QueryCanceled):
                raise
            raise InvalidRequestError(
                f"the query took longer than {limit_s:g} s",
                code="vql.timeout",
                hint=hint,
            ) from error

    def role(self, tenant: str) -> str | None:
        """The role that reads for a tenant, made at its first use; ``None`` when it cannot be made."""
        if tenant in self._roles:
            return self._roles[tenant]
        with self._preparing:
            if tenant not in self._roles:
                self._roles[tenant] = reader_of(self.sessions, tenant)
            return self._roles[tenant]
