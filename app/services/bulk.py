"""Many independent jobs of one request: each checked by itself, and then all of them stored or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.jobs import SubmitJob
from app.domain.ports import Bell
from app.persistence import idempotency, new_jobs
from app.persistence.new_jobs import Alike, Chunk
from app.persistence.sessions import Sessions
from app.services import depending
from app.services.ids import new_id
from app.services.jobs import Jobs, ring_all
from app.services.once import Fingerprint, earlier
from app.services.submissions import Form

MAX_JOBS: Final = 10_000
_AT: Final = "/jobs/{}"
_JOBS_AT_ONCE: Final = 1000
"""In one statement."""
_Checked = Sequence[tuple[Form, dict[str, Any], Mapping[str, str] | None]]
"""Requests in their order, with the configs and the labels that their jobs get."""


class Variant(NamedTuple):
    """A request for a job: ``options`` but for its config and its labels.

    Args:
        options: The same object for all that say the same; it is looked at once.
    """

    options: SubmitJob
    config: dict[str, Any]
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SubmittedMany:
    """The ids of jobs in the order of their request, and whether an earlier request had made them."""

    ids: list[UUID]
    replayed: bool = False


class Bulk:
    """Submits many jobs at once."""

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs

    def submit(self, requests: Sequence[Variant], *, idempotency_key: str | None = None) -> SubmittedMany:
        """Accept jobs of one tenant, all or none.

        Args:
            idempotency_key: A second submit with the same key and the same requests answers with the first one's jobs.
        Raises:
            InvalidRequestError: One does not fit its type, or the key was used for others; the pointer names which.
            NotFoundError: One depends on a job that the tenant does not have.
            ConflictError: A request with the same key is in flight.
        """
        checked = self._checked(requests)
        with self._sessions.begin() as session:
            if idempotency_key is None:
                ids, queued = self._store(session, checked)
            else:
                tenant, said = requests[0].options.tenant, _fingerprint(checked)
                made = earlier(session, tenant, idempotency_key, said)
                if made is not None:
                    return SubmittedMany(made, replayed=True)
                ids, queued = self._store(session, checked)
                idempotency.add(session, tenant, idempotency_key, fingerprint=said, job_ids=ids)
        ring_all(self._bell, queued)
        return SubmittedMany(ids)

    def _checked(self, requests: Sequence[Variant]) -> _Checked:
        forms: dict[int, Form] = {}
        checked = []
        for place, (options, config, labels) in enumerate(requests):
            at = _AT.format(place)
            form = forms.get(id(options))
            if form is None:
                form = forms[id(options)] = self._jobs.form(options, at=at)
            checked.append((form, self._jobs.config(form, config, at=at), labels))
        return checked

    def _store(self, session: Session, checked: _Checked) -> tuple[list[UUID], Counter[str]]:
        """Insert them; their ids, and how many went straight to each queue."""
        waits = depending.waits(session, [form.request for form, *_ in checked], at=_AT)
        ids: list[UUID] = []
        queued: Counter[str] = Counter()
        chunks = _chunks(checked, waits, ids)
        if len(checked) > _JOBS_AT_ONCE:
            chunks = _written_ahead(chunks)
        for number, given in enumerate(chunks):
            before = number * _JOBS_AT_ONCE
            stored = new_jobs.insert(session, given, room=self._jobs.room, ahead=self._jobs.ahead, before=before)
            queued.update(stored)
        depending.keep(session, zip(ids, waits, strict=True))
        for job_id, (form, *_), wait in zip(ids, checked, waits, strict=True):
            if wait.stopped:
                depending.stop(session, form.request.tenant, job_id, form.request.on_dependency_failure)
        return ids, queued


def _chunks(checked: _Checked, waits: Sequence[depending.Wait], ids: list[UUID]) -> Iterator[str]:
    """Jobs ready to be stored, as many at a time as one statement takes; what they are called is added to ``ids``."""
    alike: dict[tuple[int, int], Alike] = {}
    chunk = Chunk()
    for (form, config, labels), wait in zip(checked, waits, strict=True):
        key = id(form), wait.needs_left
        if key not in alike:
            alike[key] = Alike(form.request, form.queue, form.retry, needs_left=wait.needs_left)
        ids.append(new_id())
        chunk.add(alike[key], str(ids[-1]), config, labels=labels)
        if len(chunk) == _JOBS_AT_ONCE:
            yield chunk.text()
            chunk = Chunk()
    if len(chunk):
        yield chunk.text()


def _written_ahead(chunks: Iterator[str]) -> Iterator[str]:
    """The same, the next one written while Postgres stores the last."""
    with ThreadPoolExecutor(1, thread_name_prefix="chunks") as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk


def _fingerprint(checked: _Checked) -> bytes:
    said = Fingerprint()
    for form, config, labels in checked:
        said.add(form.request, config, labels)
    return said.bytes()
