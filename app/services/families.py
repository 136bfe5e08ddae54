"""The use cases of families: batches of payloads, their growth, and their children."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from tempfile import SpooledTemporaryFile
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.families import Counts, Kind, Member, OnFailure, Plan
from app.domain.jobs import Job, OnDependencyFailure, Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import Bell
from app.domain.resources import Resources
from app.domain.retry import RetryChanges
from app.persistence import families, new_jobs, results
from app.persistence.families import PARENT_QUEUE
from app.persistence.new_jobs import Alike, Chunk, NewJob
from app.persistence.sessions import Sessions
from app.services import delivering
from app.services.founding import CHILDREN_AT_ONCE, NO_RETRY, add_parent, child, insert, skip_if_over
from app.services.ids import new_id
from app.services.jobs import Jobs, ring_all
from app.services.once import Fingerprint, Submitted, check_key, once
from app.services.submissions import Form

MAX_PAYLOADS: Final = 1_000_000
_SPOOL_BYTES: Final = 8 * 2**20
"""Payloads of a batch that is being made are kept in memory up to this, and in a file beyond."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One item of a batch: a job of its own, but for its place; ``max_concurrency`` is of its key, as any job's."""

    type: str
    config: dict[str, Any]
    retry: RetryChanges | None = None
    attempt_timeout_s: float | None = None
    name: str | None = None
    priority: Priority | None = None
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()

    def filled(self, *, config: dict[str, Any], name: str | None = None) -> Payload:
        """Another like it."""
        return replace(self, config=config, name=name)


@dataclass(frozen=True, slots=True)
class SubmitBatch:
    """A request for a batch, checked as far as its shape goes.

    Args:
        payloads: Read once, as they are stored.
        max_concurrency: Payloads at work at once at most.
        max_payloads: How far it may be extended.
        sink: Where the results go: ``name`` of a sink of the tenant, or ``provider`` and ``config``; and ``key``.
        payloads_at: Where they stand in what was sent, the first one at ``first_place``; the sink at ``sink_at``.
        retry: Holds for every payload, later ones too, as far as it does not say otherwise.
    """

    tenant: str
    payloads: Iterable[Payload]
    created_by: str
    max_concurrency: int = 5
    max_payloads: int = MAX_PAYLOADS
    on_failure: OnFailure = OnFailure.CONTINUE
    retry: RetryChanges | None = None
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    timeout_s: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    depends_on: tuple[UUID, ...] = ()
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.CANCEL
    clone_of: UUID | None = None
    sink: dict[str, Any] | None = None
    payloads_at: str = "/payloads"
    first_place: int = 0
    sink_at: str = "/sink"


class Families:
    """The use cases of families."""

    def __init__(self, sessions: Sessions, bell: Bell, jobs: Jobs) -> None:
        self._sessions = sessions
        self._bell = bell
        self._jobs = jobs

    def create_batch(self, batch: SubmitBatch, *, idempotency_key: str | None = None) -> Submitted:
        """Store a batch and all its payloads, or none.

        Args:
            idempotency_key: As ``Jobs.submit`` takes it; the payloads and their order are of the request.
        Raises:
            InvalidRequestError: A payload does not fit its type; the pointer names it.
            ConflictError: A request with the same key is in flight.
        """
        check_key(idempotency_key)
        parent, plan = self._jobs.prepared(_parent(batch), queue=PARENT_QUEUE), self._plan(batch)
        children = _Children(self._jobs, parent, batch, keyed=idempotency_key is not None)
        queued: Counter[str] = Counter()
        # Checked and put by before the transaction begins: it waits for nobody who sends slowly or not at all.
        with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            for text in children.texts():
                spool.write(text.encode() + b"\n")
            spool.seek(0)

            def store() -> Job:
                queued.update(self._insert(session, spool, total=children.total))
                # Last: what it waits for is locked from here on, and cannot end meanwhile.
                job = add_parent(session, parent, plan, total=children.total)
                skip_if_over(session, job)
                return job

            with self._sessions.begin() as session:
                submitted = once(session, parent.request, idempotency_key, store, members=children.said.bytes())
        ring_all(self._bell, queued)
        return submitted

    def _insert(self, session: Session, spool: Iterable[bytes], *, total: int) -> Counter[str]:
        """Store ``total`` children in their chunks; how many went straight to each queue."""
        # While a batch that takes long is being stored, others are to be admitted.
        ahead = self._jobs.ahead
        room = self._jobs.room if total <= ahead else 0
        queued: Counter[str] = Counter()
        for number, chunk in enumerate(spool):
            before = number * CHILDREN_AT_ONCE
            queued.update(new_jobs.insert(session, chunk.decode(), room=room, ahead=ahead, before=before))
        return queued

    def _members(self, batch: SubmitBatch) -> Iterator[Member]:
        of_all = batch.retry or RetryChanges()
        for at, payload in _placed(batch):
            yield self._member(batch.tenant, batch.created_by, payload, of_all=of_all, at=at)

    def planned(self, batch: SubmitBatch) -> tuple[SubmitJob, Plan]:
        """A batch to be made later, and again: its parent and its payloads, which are all in memory.

        Raises:
            InvalidRequestError: As ``create_batch``.
        """
        return _parent(batch), replace(self._plan(batch), members=tuple(self._members(batch)))

    def _plan(self, batch: SubmitBatch) -> Plan:
        delivery = None
        if batch.sink is not None:
            delivery = delivering.member(
                self._jobs, batch.tenant, batch.sink, created_by=batch.created_by, at=batch.sink_at
            )
        return Plan(
            Kind.BATCH, batch.max_concurrency, batch.max_payloads, batch.on_failure, members=(), delivery=delivery
        )

    def extend(self, tenant: str, parent_id: UUID, payloads: Sequence[Payload]) -> int:
        """Add payloads to a batch that is not over; how many it has now.

        Raises:
            ConflictError: It is over, or takes no payloads.
        """
        with self._sessions.begin() as session:
            parent = self._locked(session, tenant, parent_id)
            if parent.is_terminal or parent.type != Kind.BATCH:
                raise ConflictError(
                    f"payloads can be added to a batch that is not over; job {parent_id} is a {parent.type}, "
                    f"{parent.state}",
                    code="batch.not_growing",
                    data={"state": parent.state},
                )
            self._must_have_room(session, parent_id, len(payloads))
            first = families.grow(session, parent_id, len(payloads))
            of_all = RetryChanges.from_json(parent.config["retry"])
            members = [
                self._member(tenant, parent.created_by, payload, of_all=of_all, at=f"/payloads/{place}")
                for place, payload in enumerate(payloads)
            ]
            insert(session, [child(parent, place, member) for place, member in enumerate(members, start=first)])
            families.touch(session, parent)
        self._bell.ring_engine()
        return first + len(payloads)

    @staticmethod
    def _must_have_room(session: Session, parent_id: UUID, more: int) -> None:
        _, places = families.room(session, parent_id) or (None, 0)
        if more > places:
            raise InvalidRequestError(
                f"the batch takes {max(0, places):,} more payloads, got {more:,}",
                code="batch.too_many",
                problems=(Problem("/payloads", f"expected at most {max(0, places)} items, got {more}"),),
            )

    def given(self, tenant: str, batch_id: UUID) -> Iterator[Payload]:
        """The payloads that a batch was given, in order; not those that its payloads added."""
        after = -1
        while page := self._page(tenant, batch_id, after=after):
            yield from (_given(member) for _, member in page)
            after, _ = page[-1]

    def _page(self, tenant: str, batch_id: UUID, *, after: int) -> list[tuple[int, Member]]:
        with self._sessions.begin() as session:
            return families.payloads(session, tenant, batch_id, after=after, limit=CHILDREN_AT_ONCE)

    def deliveries(self, tenant: str, parent_id: UUID) -> list[Job]:
        """The jobs that take the results of a job to its sink, the last one last; none of one without a sink."""
        self._jobs.get(tenant, parent_id)
        with self._sessions.begin() as session:
            return results.deliveries(session, tenant, parent_id)

    def counts(self, tenant: str, parent_id: UUID) -> Counts:
        """How many children of a job stand where; a job that is no parent has none."""
        self._jobs.get(tenant, parent_id)
        with self._sessions.begin() as session:
            return families.counts(session, tenant, parent_id) or Counts(0, 0, 0, 0, 0)

    def children(
        self, tenant: str, parent_id: UUID, *, after: int, limit: int, states: tuple[JobState, ...] = ()
    ) -> list[Job]:
        """The children in their order, from place ``after`` (exclusive) on."""
        self._jobs.get(tenant, parent_id)
        with self._sessions.begin() as session:
            return families.children(session, tenant, parent_id, after=after, limit=limit, states=states)

    @staticmethod
    def _locked(session: Session, tenant: str, parent_id: UUID) -> Job:
        parent = families.lock(session, parent_id)
        if parent is None or parent.tenant != tenant:
            raise NotFoundError(f"there is no job {parent_id}", code="job.not_found")
        return parent

    def _member(self, tenant: str, actor: str, payload: Payload, *, of_all: RetryChanges, at: str) -> Member:
        member = self._jobs.member(_request(tenant, actor, payload, of_all), at=at)
        return replace(member, name=payload.name, priority=payload.priority)


_OPTIONS: Final = attrgetter(
    "type", "retry", "attempt_timeout_s", "priority", "concurrency_key", "max_concurrency", "resources"
)
"""Of a payload: all but its config and its name."""
_FORMS_KEPT: Final = 1000


class _Children:
    """A batch's payloads as children of its job, ready to be stored; options that are alike are looked at once.

    As many as may be at work at once begin ``open`` or, when there is room, ``queued``, unless the batch waits for
    something: its first children need no step of the engine's. The others are ``blocked`` until it releases them.

    Args:
        keyed: Whether it is asked for what the payloads ``said``.
    """

    def __init__(self, jobs: Jobs, parent: NewJob, batch: SubmitBatch, *, keyed: bool) -> None:
        self.total = 0
        self.said = Fingerprint()
        self._jobs = jobs
        self._parent = parent
        self._batch = batch
        self._keyed = keyed
        self._open = 0 if batch.run_after or batch.depends_on else batch.max_concurrency
        self._forms: dict[Any, tuple[Form, Alike, Alike]] = {}

    def texts(self) -> Iterator[str]:
        """Chunks of them, as ``new_jobs.insert`` takes them.

        Raises:
            InvalidRequestError: One does not fit its type, or there are too many.
        """
        chunk = Chunk()
        for at, payload in _placed(self._batch):
            self._add(chunk, payload, at)
            if len(chunk) == CHILDREN_AT_ONCE:
                yield chunk.text()
                chunk = Chunk()
        if len(chunk):
            yield chunk.text()

    def _add(self, chunk: Chunk, payload: Payload, at: str) -> None:
        options = _OPTIONS(payload)
        known = self._forms.get(options)
        if known is None:
            known = self._form(payload, at)
            if len(self._forms) == _FORMS_KEPT:
                self._forms.clear()
            self._forms[options] = known
        form, first, later = known
        config = self._jobs.config(form, payload.config, at=at)
        alike = first if self.total < self._open else later
        chunk.add(alike, str(new_id()), config, child_no=self.total, name=payload.name)
        if self._keyed:
            self.said.add(form.request, config, payload.name)
        self.total += 1

    def _form(self, payload: Payload, at: str) -> tuple[Form, Alike, Alike]:
        batch, parent = self._batch, self._parent.request
        request = _request(batch.tenant, batch.created_by, payload, batch.retry or RetryChanges())
        priority = parent.priority if payload.priority is None else payload.priority
        form = self._jobs.form(replace(request, origin=parent.origin, priority=priority), at=at)
        first = Alike(form.request, form.queue, form.retry, parent_id=self._parent.id)
        return form, first, replace(first, blocked=True)


def _placed(batch: SubmitBatch) -> Iterator[tuple[str, Payload]]:
    """A batch's payloads, each with where it stands in what was sent; as many as it may have."""
    for place, payload in enumerate(batch.payloads):
        at = f"{batch.payloads_at}/{place + batch.first_place}"
        if place >= batch.max_payloads:
            raise InvalidRequestError(
                f"the batch holds {batch.max_payloads:,} payloads at most",
                code="batch.too_many",
                problems=(Problem(at, f"expected at most {batch.max_payloads} payloads"),),
            )
        yield at, payload


def _request(tenant: str, actor: str, payload: Payload, of_all: RetryChanges) -> SubmitJob:
    return SubmitJob(
        tenant=tenant,
        type=payload.type,
        config=payload.config,
        created_by=actor,
        retry=(payload.retry or RetryChanges()).over(of_all),
        attempt_timeout_s=payload.attempt_timeout_s,
        concurrency_key=payload.concurrency_key,
        max_concurrency=payload.max_concurrency,
        resources=payload.resources,
    )


def _given(member: Member) -> Payload:
    return Payload(
        type=member.type,
        config=member.config,
        retry=RetryChanges(asdict(member.retry)),
        attempt_timeout_s=member.attempt_timeout_s,
        name=member.name,
        priority=member.priority,
        concurrency_key=member.concurrency_key,
        max_concurrency=member.max_concurrency,
        resources=member.resources,
    )


def _parent(batch: SubmitBatch) -> SubmitJob:
    return SubmitJob(
        tenant=batch.tenant,
        type=Kind.BATCH,
        config={
            "max_concurrency": batch.max_concurrency,
            "max_payloads": batch.max_payloads,
            "on_failure": batch.on_failure,
            "retry": (batch.retry or RetryChanges()).as_json(),
            "sink": batch.sink,
        },
        created_by=batch.created_by,
        priority=batch.priority,
        run_after=batch.run_after,
        timeout_s=batch.timeout_s,
        depends_on=batch.depends_on,
        on_dependency_failure=batch.on_dependency_failure,
        clone_of=batch.clone_of,
        labels=batch.labels,
        retry=NO_RETRY,
    )
