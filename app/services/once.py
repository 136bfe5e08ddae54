"""Requests that may be sent again: a key stands for one request, and for the jobs it made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, InvalidRequestError
from app.domain.jobs import Job, SubmitJob
from app.domain.retry import RetryPolicy, policy_of
from app.persistence import idempotency, jobs


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job, and whether an earlier request with the same idempotency key had made it."""

    job: Job
    replayed: bool = False


def check_key(key: str | None) -> None:
    """Raise InvalidRequestError for an idempotency key that cannot be kept."""
    if key is not None and (not 1 <= len(key) <= 255 or "\0" in key):
        raise InvalidRequestError(f"an Idempotency-Key has 1 to 255 characters, got {len(key)}")


def once(
    session: Session,
    request: SubmitJob,
    key: str | None,
    make: Callable[[], Job],
    *,
    name: str | None = None,
    members: bytes = b"",
) -> Submitted:
    """The job that ``make`` stores, or the one that the first request with ``key`` made; without a key always a new.

    Args:
        request: Another one under the same key is refused. So is another ``name`` of a pipeline, or other ``members``,
            the digest of what a batch is given beside its options.
    Raises:
        InvalidRequestError: The key was used for another request, or cannot be kept.
        ConflictError: A request with the same key is in flight.
    """
    if key is None:
        return Submitted(make())
    said = fingerprint([request], name=name, members=members)
    made = earlier(session, request.tenant, key, said)
    if made is not None:
        return Submitted(jobs.get(session, request.tenant, made[0]), replayed=True)
    job = make()
    idempotency.add(session, request.tenant, key, fingerprint=said, job_ids=[job.id])
    return Submitted(job)


def earlier(session: Session, tenant: str, key: str, said: bytes) -> list[UUID] | None:
    """The jobs of the first request with an idempotency key; ``None`` for the first itself.

    Until the transaction ends no other request with the key gets past this.

    Args:
        said: The fingerprint of the request.
    Raises:
        InvalidRequestError: The key was used for another request, or cannot be kept.
        ConflictError: A request with the same key is in flight.
    """
    check_key(key)
    if not idempotency.try_lock(session, tenant, key):
        raise ConflictError(
            f"a request with Idempotency-Key {key!r} is in flight",
            code="idempotency.in_flight",
            hint="Send it again in a second; the answer will be the first request's.",
        )
    found = idempotency.find(session, tenant, key)
    if found is None:
        return None
    if found[0] != said:
        raise InvalidRequestError(
            f"Idempotency-Key {key!r} was used for another request",
            code="idempotency.key_reused",
            hint="Use a new key for a new request.",
        )
    return found[1]


def fingerprint(requests: Sequence[SubmitJob], *, name: str | None = None, members: bytes = b"") -> bytes:
    """What tells requests from others, whoever sends them when; ``name`` and ``members`` as in ``once``."""
    digest = hashlib.sha256(json.dumps([name, members.hex()]).encode())
    for request in requests:
        digest.update(json.dumps(_said(request), sort_keys=True).encode())
    return digest.digest()


class Fingerprint:
    """``fingerprint`` of jobs that come one by one, most of which differ in few things alone."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(b"jobs")
        self._last: tuple[SubmitJob, bytes] | None = None

    def add(self, options: SubmitJob, *own: Any) -> None:
        """One more job.

        Args:
            options: If it is the same object as the last one's, it is not read again.
            own: What it says beside them, values of JSON.
        """
        if self._last is None or self._last[0] is not options:
            self._last = options, fingerprint([options])
        self._digest.update(self._last[1] + json.dumps(own, sort_keys=True).encode())

    def bytes(self) -> bytes:
        """What tells these jobs from others."""
        return self._digest.digest()


def _said(request: SubmitJob) -> dict[str, Any]:
    return {
        "type": request.type,
        "config": request.config,
        "priority": int(request.priority),
        "run_after": request.run_after.isoformat() if request.run_after else None,
        "timeout_s": request.timeout_s,
        "attempt_timeout_s": request.attempt_timeout_s,
        "retry": policy_of(request.retry, RetryPolicy()).as_json(),
        "labels": request.labels,
        "depends_on": sorted(map(str, request.depends_on)),
        "on_dependency_failure": request.on_dependency_failure,
        "concurrency_key": request.concurrency_key,
        "max_concurrency": request.max_concurrency,
        "resources": [request.resources.memory_mb, request.resources.cpu_m],
    }
