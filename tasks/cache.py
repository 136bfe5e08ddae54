"""The cache that job types are given: small values of the tenant, in Postgres."""

from __future__ import annotations

from typing import Any, Final

from app.domain.jobs import Job
from app.domain.texts import check_json, is_storable
from app.persistence import cache
from app.persistence.sessions import Sessions

_LONGEST_KEY: Final = 255
_LONGEST_TTL_S: Final = 30 * 86_400.0
_MOST_BYTES: Final = 64 * 1024


class TenantCache:
    """``domain.job_types.JobCache`` for one run."""

    def __init__(self, sessions: Sessions, job: Job) -> None:
        self._sessions = sessions
        self._job = job

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        _check_key(key)
        with self._sessions.begin() as session:
            found = cache.get(session, self._job.tenant, key)
        return default if found is None else found[0]

    def set(self, key: str, value: Any, *, ttl_s: float = 3600.0) -> None:
        """Keep a value.

        Raises:
            ValueError: The key has no or too many characters, or the time is none.
            JobError: ``cache.value_invalid``: the value is no JSON, or too large.
            FenceLost: The job is no longer held.
        """
        _check_key(key)
        if not 0 < ttl_s <= _LONGEST_TTL_S:
            raise ValueError(f"a cached value is kept for at most {_LONGEST_TTL_S:.0f} s, got {ttl_s}")
        check_json(value, "cached value", code="cache.value_invalid", most_bytes=_MOST_BYTES)
        with self._sessions.begin() as session:
            cache.put(session, self._job, key, value, ttl_s=ttl_s)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= _LONGEST_KEY or not is_storable(key):
        raise ValueError(f"a cache key has 1 to {_LONGEST_KEY} characters, got {key[:300]!r}")
