"""API keys: made, listed, revoked and checked."""

from __future__ import annotations

import threading
from datetime import datetime
from time import monotonic

from app.domain.access import ApiKey, Principal, Role, check_tenant
from app.domain.errors import UnauthorizedError
from app.domain.ports import Clock
from app.persistence import keys as rows
from app.persistence.sessions import Sessions
from app.security import keys


class Keys:
    """The use cases of API keys.

    Args:
        cache_s: How long a key that was good is not asked for again; a revoked one works this much longer.
    """

    def __init__(self, sessions: Sessions, clock: Clock, *, cache_s: float = 0.0) -> None:
        self._sessions = sessions
        self._clock = clock
        self._cache_s = cache_s
        self._known: dict[str, tuple[float, Principal]] = {}
        self._lock = threading.Lock()

    def create(
        self, tenant: str, role: Role, *, label: str = "", created_by: str, expires_at: datetime | None = None
    ) -> tuple[str, ApiKey]:
        """A new key of ``tenant`` (which becomes known when it is new): its text, shown this once, and its record."""
        check_tenant(tenant)
        key_id, key, secret_hash = keys.draw()
        with self._sessions.begin() as session:
            rows.add_tenant(session, tenant)
            record = rows.add(
                session,
                tenant,
                key_id=key_id,
                secret_hash=secret_hash,
                role=role,
                label=label,
                created_by=created_by,
                expires_at=expires_at,
            )
        return key, record

    def list(self, tenant: str) -> list[ApiKey]:
        """The tenant's keys, revoked ones too."""
        with self._sessions.begin() as session:
            return rows.of_tenant(session, tenant)

    def revoke(self, tenant: str, key_id: str) -> ApiKey:
        """End a key; NotFoundError when the tenant has none of this id."""
        with self._sessions.begin() as session:
            record = rows.revoke(session, tenant, key_id)
        with self._lock:
            self._known = {key: entry for key, entry in self._known.items() if entry[1].key_id != key_id}
        return record

    def authenticate(self, key: str | None) -> Principal:
        """Who holds ``key``.

        Raises:
            UnauthorizedError: Missing, malformed, unknown, wrong, expired or revoked; always in the same words.
        """
        if key is not None:
            with self._lock:
                entry = self._known.get(key)
            if entry is not None and monotonic() - entry[0] < self._cache_s:
                return entry[1]
        principal = self._look_up(key) if key else None
        if principal is None or key is None:
            raise UnauthorizedError("the API key is missing or not valid")
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = (monotonic(), principal)
        return principal

    def _look_up(self, key: str) -> Principal | None:
        parts = keys.split(key)
        if parts is None:
            return None
        with self._sessions.begin() as session:
            found = rows.live(session, parts[0])
        if found is None or not keys.matches(parts[1], found[1]):
            return None
        record = found[0]
        return Principal(key_id=record.id, tenant=record.tenant, role=record.role)
