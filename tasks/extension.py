"""What a running payload gives to its batch: checked when it is given, stored with the giver's end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from app.domain.durations import duration_s
from app.domain.errors import HaulierError, InvalidRequestError, JobError
from app.domain.families import Kind, Member
from app.domain.job_types import JobConfig
from app.domain.jobs import Job, SubmitJob, priority_of
from app.domain.resources import Resources, cpu_m, memory_mb
from app.domain.texts import is_storable
from app.persistence import families
from app.persistence.sessions import Sessions
from app.services.submissions import Checks

MAX_GIVEN: Final = 10_000
"""Payloads that one job may give."""
MAX_BYTES: Final = 8 * 2**20
"""What they may come to as JSON."""
_YEAR_S: Final = 31_536_000


def _interval_ms(value: float | str) -> float:
    interval_s = duration_s(value, "")
    if interval_s > _YEAR_S:
        raise ValueError(f"expected at most a year, got {value!r}")
    return interval_s * 1000


Interval = Annotated[float | str, AfterValidator(_interval_ms)]


Memory = Annotated[int, BeforeValidator(memory_mb)]
Mebibytes = Annotated[int, AfterValidator(memory_mb)]
Processors = Annotated[int, BeforeValidator(cpu_m)]
Word = Literal["high", "normal", "low"]


class GivenRetry(JobConfig):
    """A retry policy, as a batch's payload has it; what is left out is as in the batch's."""

    maximum_attempts: int = Field(3, ge=1, le=1000)
    initial_interval: Interval = 0
    backoff_coefficient: float = Field(2.0, ge=1, le=1000)
    maximum_interval: Interval = 0
    jitter: bool = True
    transient_only: bool = True
    non_retryable: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field([], max_length=50)


class GivenResources(JobConfig):
    """What a payload may use; a priority in it is the payload's, unless that has one."""

    memory: Memory | None = None
    memory_mb: Mebibytes | None = None
    cpu: Processors | None = None
    priority: Word | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.memory is not None and self.memory_mb is not None:
            raise ValueError("expected memory or memory_mb, got both")
        return self


class GivenPayload(JobConfig):
    """A payload, as a batch takes it."""

    type: str
    config: dict[str, Any] = Field(default_factory=dict)
    retry: GivenRetry | None = None
    attempt_timeout_s: float | None = Field(None, gt=0, le=_YEAR_S)
    name: str | None = Field(None, min_length=1, max_length=255)
    priority: Word | None = None
    concurrency_key: str | None = Field(None, min_length=1, max_length=255)
    max_concurrency: int | None = Field(None, ge=1, le=1_000_000)
    resources: GivenResources = GivenResources()

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.max_concurrency is not None and self.concurrency_key is None:
            raise ValueError("expected a concurrency_key beside max_concurrency, got none")
        return self


class Extension:
    """What one run of a job has given so far."""

    def __init__(self, job: Job, sessions: Sessions) -> None:
        self._job = job
        self._sessions = sessions
        self._bytes = 0
        self.payloads: tuple[dict[str, Any], ...] = ()

    def add(self, payloads: Sequence[Mapping[str, Any]], checks: Checks) -> None:
        """Take payloads, all or none.

        Raises:
            JobError: One does not fit, there are too many, or there is no batch to give them to.
        """
        room = self._room()
        if len(self.payloads) + len(payloads) > room:
            raise JobError(
                f"at most {room:,} payloads can be added here, got {len(self.payloads) + len(payloads):,}",
                code="extend.too_many",
            )
        ready = [self._checked(place, payload, checks) for place, payload in enumerate(payloads)]
        self._bytes += sum(len(json.dumps(payload)) for payload in ready)
        if self._bytes > MAX_BYTES:
            raise JobError(f"payloads of {self._bytes:,} bytes are over {MAX_BYTES:,}", code="extend.too_large")
        self.payloads += tuple(ready)

    def _room(self) -> int:
        found = None
        if self._job.parent_id is not None:
            with self._sessions.begin() as session:
                found = families.room(session, self._job.parent_id)
        if found is None or found[0] is not Kind.BATCH:
            raise JobError(
                "only a payload of a batch can add payloads; this job is none",
                code="extend.no_batch",
                hint="Submit it by POST /v1/batches.",
            )
        return max(0, min(found[1], MAX_GIVEN))

    def _checked(self, place: int, given: Mapping[str, Any], checks: Checks) -> dict[str, Any]:
        try:
            # A copy: what the job does with its own from now on is not checked.
            copy = json.loads(json.dumps(given, allow_nan=False))
            return self._ready(GivenPayload.model_validate(copy), checks)
        except (ValidationError, TypeError, ValueError, RecursionError) as error:
            raise JobError(f"payload {place} is none: {error}"[:2000], code="extend.invalid") from None
        except HaulierError as error:
            said = "; ".join(f"{problem.pointer}: {problem.detail}" for problem in error.problems)
            raise JobError(
                f"payload {place}: {error.detail} ({said})" if said else f"payload {place}: {error.detail}",
                code="extend.invalid",
                hint=error.hint,
            ) from None

    def _ready(self, payload: GivenPayload, checks: Checks) -> dict[str, Any]:
        """As the engine stores it, which asks no job type."""
        if not is_storable([payload.name, payload.concurrency_key]):
            raise InvalidRequestError("the name or the key holds U+0000 or half of a surrogate pair")
        uses = payload.resources
        request = checks.checked(
            SubmitJob(
                self._job.tenant,
                payload.type,
                payload.config,
                created_by=self._job.created_by,
                attempt_timeout_s=payload.attempt_timeout_s,
                concurrency_key=payload.concurrency_key,
                max_concurrency=payload.max_concurrency,
                resources=Resources(uses.memory or uses.memory_mb, uses.cpu),
            )
        )
        job_type = checks.registry.get(request.type)
        member = Member(
            type=request.type,
            config=request.config,
            queue=job_type.queue_for(request),
            retry=job_type.retry,
            attempt_timeout_s=request.attempt_timeout_s,
            name=payload.name,
            priority=priority_of(payload.priority or uses.priority),
            concurrency_key=request.concurrency_key,
            max_concurrency=request.max_concurrency,
            resources=request.resources,
        )
        retry = payload.retry.model_dump(exclude_unset=True) if payload.retry else {}
        return {**member.as_json(), "retry_changes": retry}
