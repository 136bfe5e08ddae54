"""What a job is: the row as the rest of the code sees it, and the request that makes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from app.domain.lifecycle import TERMINAL, JobState
from app.domain.measures import Measures
from app.domain.progress import Progress
from app.domain.resources import Resources
from app.domain.retry import RetryChanges, RetryPolicy


class Priority(IntEnum):
    """Order of the claim; lower goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


def word_of(priority: Priority | None) -> str | None:
    """A priority as it is sent and shown."""
    return None if priority is None else priority.name.lower()


def priority_of(word: str | None) -> Priority | None:
    """The inverse of ``word_of``."""
    return None if word is None else Priority[word.upper()]


class Outcome(StrEnum):
    """How a completed job ended."""

    SUCCESS = "success"
    PARTIAL = "partial"
    """Some rows or parts failed and stand in the ledger."""
    EMPTY = "empty"
    """There was nothing to do."""


class Origin(StrEnum):
    """Which mount a job came in by."""

    NATIVE = "native"
    CONNECTRA = "connectra"
    SYSTEM = "system"


class OnDependencyFailure(StrEnum):
    """What becomes of a job when one it waits for did not complete."""

    CANCEL = "cancel"
    """It is cancelled, reason ``skipped``."""
    FAIL = "fail"
    RUN = "run"
    """It runs all the same, when all it waits for is over."""


@dataclass(frozen=True)
class Job:
    """One row of ``jobs``; times are aware UTC.

    Args:
        number: Counts jobs over the whole installation; document 004's ``id``.
        fence: How often it was claimed; what a holder must show to write.
        attempts: Tries that count against ``retry``; a lost or drained worker's do not.
        rescues: Workers lost since the last checkpoint progress.
        counters: What the type counts: ``read``, ``loaded``, ``updated`` and so on.
        error: The last failure: ``code``, ``message``, ``hint``, ``attempt``.
        worker: The slot that holds it.
        child_no: Its place among its parent's children, from 0; ``name`` is a stage's.
        needs_left: Jobs it waits for that are not over.
        schedule_id: The schedule that made it.
        dialect: What a foreign client said in words of its own, to be echoed.
        concurrency_key: What limits of the tenant count it by; ``max_concurrency`` is its own bound.
    """

    id: UUID
    number: int
    tenant: str
    type: str
    queue: str
    state: JobState
    priority: Priority
    config: dict[str, Any]
    retry: RetryPolicy
    origin: Origin
    created_by: str
    created_at: datetime
    updated_at: datetime
    fence: int = 0
    attempts: int = 0
    rescues: int = 0
    event_no: int = 0
    paused: bool = False
    cancel_requested: bool = False
    cancel_reason: str | None = None
    run_after: datetime | None = None
    deadline_at: datetime | None = None
    attempt_timeout_s: float | None = None
    admitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    progress: Progress = field(default_factory=Progress)
    counters: dict[str, int] = field(default_factory=dict)
    error_count: int = 0
    checkpoint: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    worker: UUID | None = None
    parent_id: UUID | None = None
    child_no: int | None = None
    name: str | None = None
    needs_left: int = 0
    clone_of: UUID | None = None
    schedule_id: UUID | None = None
    labels: dict[str, str] = field(default_factory=dict)
    dialect: dict[str, Any] = field(default_factory=dict)
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()
    measures: Measures = Measures()

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def starts(self) -> int:
        """How often a worker began it, whatever came of that."""
        return self.fence

    @property
    def is_at_retry(self) -> bool:
        """Whether an attempt came before the one that runs or waits."""
        return self.queue == "retry" or self.attempts > (1 if self.state is JobState.RUNNING else 0)


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """A request for a job, checked as far as its shape goes.

    Args:
        config: For the job type; checked by its model before a row is made.
        run_after: Not before this instant.
        timeout_s: From submission to the end; over it the job is cancelled with reason ``timeout``.
        attempt_timeout_s: One attempt; over it the attempt fails as transient.
        retry: What it leaves out is as in the type's own policy.
        depends_on: Jobs of the tenant that must be over before it starts.
        schedule_id: The schedule that makes it.
        concurrency_key: What limits of the tenant count it by.
        max_concurrency: Jobs of its key that may be admitted and not over, this one included.
        resources: What it may use; a job that says so runs in a process of its own.
    """

    tenant: str
    type: str
    config: dict[str, Any]
    created_by: str
    origin: Origin = Origin.NATIVE
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    timeout_s: float | None = None
    attempt_timeout_s: float | None = None
    retry: RetryPolicy | RetryChanges | None = None
    depends_on: tuple[UUID, ...] = ()
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.CANCEL
    clone_of: UUID | None = None
    schedule_id: UUID | None = None
    labels: dict[str, str] = field(default_factory=dict)
    dialect: dict[str, Any] = field(default_factory=dict)
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()


@dataclass(frozen=True, slots=True)
class Signals:
    """What a holder is told with every guarded write."""

    cancel_requested: bool = False
    cancel_reason: str | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's audit trail; ``number`` counts from 1 without a gap.

    Args:
        seq: Its place among all events of the tenant, from 1 without a gap; ``None`` until the engine has numbered it.
    """

    job_id: UUID
    number: int
    type: str
    at: datetime
    actor: str
    source: JobState | None
    target: JobState
    fence: int
    data: dict[str, Any]
    seq: int | None = None
