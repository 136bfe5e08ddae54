"""Requests that may be sent again: a key stands for one request, and for the job it made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

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
    check_key(key)
    if not idempotency.try_lock(session, request.tenant, key):
        raise ConflictError(
            f"a request with Idempotency-Key {key!r} is in flight",
            code="idempotency.in_flight",
            hint="Send it again in a second; the answer will be the first request's.",
        )
    fingerprint = _fingerprint(request, name, members)
    found = idempotency.find(session, request.tenant, key)
    if found is None:
        job = make()
        idempotency.add(session, request.tenant, key, fingerprint=fingerprint, job_id=job.id)
        return Submitted(job)
    if found[0] != fingerprint:
        raise InvalidRequestError(
            f"Idempotency-Key {key!r} was used for another request",
            code="idempotency.key_reused",
            hint="Use a new key for a new request.",
        )
    return Submitted(jobs.get(session, request.tenant, found[1]), replayed=True)


def _fingerprint(request: SubmitJob, name: str | None, members: bytes) -> bytes:
    said = {
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
        "name": name,
        "members": members.hex(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()
