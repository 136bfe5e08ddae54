"""What a job type is, what it is given to run with, and how types are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from logging import Logger, LoggerAdapter
from typing import Any, BinaryIO, Final, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.config_faults import may_be_mended, misfit
from app.domain.errors import InvalidRequestError, PermanentError, Problem
from app.domain.jobs import Job, Outcome, SubmitJob
from app.domain.plugins import PluginError, load
from app.domain.ports import ObjectInfo, ObjectRef
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy
from app.domain.sinks import TenantSink
from app.domain.tables import Table

ENTRY_POINT_GROUP: Final = "haulier.job_types"
OWN_PROCESS_QUEUE: Final = "data"
"""The queue whose workers run each job in a process of its own."""
CHEAP_QUEUE: Final = "small"
"""The queue whose workers claim ``CHEAP_AT_ONCE`` jobs together, or what has shown to fit (``portions``)."""
CHEAP_AT_ONCE: Final = 50
HOUSEKEEPING: Final = "housekeeping"
"""The type of the jobs in which the installation clears up."""
FilePlace = ObjectRef | tuple[str, ...] | bytes
"""Where a file lies: an object, the parts of a path below the import folder, or the bytes themselves."""
QUEUES: Final = frozenset({OWN_PROCESS_QUEUE, CHEAP_QUEUE, "http"})
"""Those that job types may choose."""


class JobConfig(BaseModel):
    """Base of a job type's config: unknown fields are refused, values are never coerced from other JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def plugin_config(model: type[BaseModel], config: Mapping[str, Any], *, provider: str, code: str) -> Any:
    """The config of a plug-in as its model.

    Raises:
        PermanentError: ``code``; the text names the places that do not fit.
    """
    try:
        return model.model_validate(config)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise PermanentError(f"the config does not fit the provider {provider!r}: {said}", code=code) from None


@dataclass(frozen=True, slots=True)
class Result:
    """What a job type returns.

    Args:
        data: Kept on the job, JSON types only, small.
        message: One sentence for a person.
        outcome: ``partial`` when rows or parts failed, ``empty`` when there was nothing to do.
        extension: What ``job.extend`` was given, ready to be stored; not for job types to set.
        spent: What the job's runs spent (``measures``); not for job types to set.
    """

    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    outcome: Outcome = Outcome.SUCCESS
    extension: tuple[dict[str, Any], ...] = ()
    spent: dict[str, float] | None = None

    @property
    def kept(self) -> dict[str, Any]:
        """What the job keeps of it."""
        return self.data if self.message is None else {**self.data, "message": self.message}


class Submission(Protocol):
    """What a job type can ask when a request for it is checked."""

    tenant: str

    @property
    def own_bucket(self) -> str:
        """The installation's own bucket, for a config that names none."""
        ...

    @property
    def may_write_folders(self) -> bool:
        """Whether the installation has a folder that exports may write below."""
        ...

    @property
    def may_encrypt(self) -> bool:
        """Whether the installation has a master key to encrypt files under."""
        ...

    @property
    def may_scan(self) -> bool:
        """Whether the installation has a scanner for viruses."""
        ...

    @property
    def may_mirror(self) -> bool:
        """Whether the installation has a search server."""
        ...

    def place(self, bucket: str | None, key: str) -> ObjectRef:
        """The object the tenant means; ForbiddenError when it may not use it."""
        ...

    def sink(self, name: str, *, pointer: str) -> TenantSink:
        """The tenant's sink of this name; InvalidRequestError with ``pointer`` when it has none."""
        ...

    def check_line_key(self, name: str, *, pointer: str) -> None:
        """Raise InvalidRequestError with ``pointer`` when the tenant has no key of this name."""
        ...

    def upload(self, upload_id: UUID, *, pointer: str) -> ObjectRef:
        """What the tenant has uploaded; InvalidRequestError with ``pointer`` when it has none of this id."""
        ...

    def stored(self, ref: ObjectRef, *, pointer: str) -> None:
        """InvalidRequestError with ``pointer`` when there is no such object now."""
        ...

    def received(self, ref: ObjectRef, info: ObjectInfo) -> None:
        """PermanentError for an object that came by an upload and is not what was announced."""
        ...

    def path(self, path: str, *, pointer: str) -> tuple[str, ...]:
        """The parts of a path below the import folder; InvalidRequestError when the tenant may not read there."""
        ...

    def table(self, name: str, *, pointer: str) -> Table:
        """A table of the tenant; InvalidRequestError with ``pointer`` when there is none."""
        ...


class JobCache(Protocol):
    """Small values that a tenant's jobs share and that may be gone at any time."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``; ``default`` when there is none or its time is over."""
        ...

    def set(self, key: str, value: Any, *, ttl_s: float = 3600.0) -> None:
        """Keep a JSON value of at most 64 KiB for ``ttl_s`` seconds, 30 days at most.

        A tenant has 10,000 values; beyond that those go that would expire first.
        """
        ...


class JobContext(Protocol):
    """What ``run`` is given: the job, and the ways to report on it. Every write is guarded by the job's fence."""

    job: Job
    """As it was at the claim: ``job.job.checkpoint`` is what an earlier run kept."""

    @property
    def id(self) -> UUID:
        """The job's id."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop (cancelled, paused, timed out, drained or lost)."""
        ...

    def check(self) -> None:
        """Raise JobCancelled, JobPaused or FenceLost when the job is to stop; call it between units of work."""
        ...

    def progress(self, done: int, total: int | None = None, *, stage: str | None = None) -> None:
        """Report how far the job is; cheap to call often, written at most once a second."""
        ...

    def wait(self, seconds: float) -> None:
        """Sleep, but wake and raise at once when the job is asked to stop."""
        ...

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep ``state`` (JSON types, at most 1 MiB), and with it every record refused before.

        A later run of the job finds it in ``job.job.checkpoint``.
        """
        ...

    def fail_record(
        self,
        number: int,
        *,
        code: str,
        message: str,
        field: str | None = None,
        raw: str | bytes | None = None,
        first_byte: int = 0,
        end_byte: int = 0,
    ) -> None:
        """Put a record that cannot be used into the job's ledger; the job goes on and ends ``partial``.

        Written with the next checkpoint or progress, by the hundreds, or at the end of the run. A number that is in
        the ledger already stays as it is, so a run that does work again may say it again.

        Args:
            number: Of the record or line in its source, 0 or more; a job's ledger has each number once.
            code: Stable machine word; ``message`` says what was expected and what came.
            field: The one at fault.
            raw: The record as it came.
            first_byte: Where it begins in its source; ``end_byte`` is exclusive.
        """
        ...

    def artifact(
        self,
        name: str,
        stream: BinaryIO | bytes,
        *,
        content_type: str = "application/octet-stream",
        rows: int | None = None,
    ) -> UUID:
        """Store a file with the job, to be downloaded until it expires; its id.

        A file of the same name, from an earlier run too, is replaced.

        Args:
            stream: Read to its end, in pieces.
            rows: Data rows in it, where it has any.
        """
        ...

    @property
    def cache(self) -> JobCache:
        """Small values that outlive the job."""
        ...

    @property
    def log(self) -> LoggerAdapter[Logger]:
        """A logger whose lines bear the job's id, type, tenant and attempt."""
        ...

    def extend(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """Add payloads to the batch this job is a payload of, when it has succeeded; if it fails, none is added.

        Args:
            payloads: Each as a batch takes it: ``type``, ``config``, and if wanted ``retry``, ``attempt_timeout_s``,
                ``name``, ``priority``, ``concurrency_key``, ``max_concurrency`` and ``resources``.
        Raises:
            JobError: One does not fit its type, the batch takes no more, or the job is no batch's payload.
        """
        ...


@dataclass(frozen=True, slots=True)
class JobType:
    """A plug-in: what a job of this name is and does.

    Args:
        name: What clients say.
        config: The model of ``job.config``.
        run: Does the work; its return is success, what it raises says which failure.
        queue: ``data``, ``small`` or ``http``.
        cheap: Short and idempotent: claimed many at a time.
        system: Only the system itself may have such jobs; it is not in the catalogue.
        retry: The policy of jobs that bring none.
        attempt_timeout_s: Limit of one attempt when the job brings none; ``None`` takes the installation's.
        check: More checks of a request, before a row is made; raises InvalidRequestError or ForbiddenError.
        settle: A checked config as JSON with what it leaves to the installation filled in, so that the job shows it.
            That of a stage may still have a template, which is a string, in place of any value; it is settled again
            once it is filled in.
        amended: Refuses, by a ConflictError, a config that a job cannot go on with: its config, the one that is to take
            its place, and its checkpoint.
        source: Of an import, where the file of a config lies; ``None`` for one that only a copy is kept of.
        summary: One line for the catalogue.
    """

    name: str
    config: type[BaseModel]
    run: Callable[[Any, Any], Result | None]
    queue: str = "data"
    cheap: bool = False
    system: bool = False
    retry: RetryPolicy = RetryPolicy()
    attempt_timeout_s: float | None = None
    check: Callable[[Submission, Any], None] | None = None
    settle: Callable[[Submission, dict[str, Any]], dict[str, Any]] | None = None
    amended: Callable[[Any, Any, Mapping[str, Any]], None] | None = None
    source: Callable[[Submission, Any], FilePlace | None] | None = None
    summary: str = ""

    @property
    def options(self) -> list[str]:
        """What a config may hold."""
        return [field.alias or name for name, field in self.config.model_fields.items()]

    def queue_for(self, request: SubmitJob) -> str:
        """The queue of a job: its type's, or ``data`` when it asks for a hard stop, memory or processors.

        Only there has a job a process of its own; and only there is none claimed together with others.
        """
        own_timeout = request.attempt_timeout_s not in {None, self.attempt_timeout_s}
        needs_process = own_timeout or request.timeout_s is not None or request.resources != Resources()
        return OWN_PROCESS_QUEUE if needs_process else self.queue


class Registry:
    """The job types that this installation knows, by name."""

    def __init__(self, types: Mapping[str, JobType]) -> None:
        self._types = dict(types)

    def __iter__(self) -> Any:
        return iter(self._types.values())

    @cached_property
    def open(self) -> Registry:
        """The types that clients may have jobs of."""
        return Registry({name: one for name, one in self._types.items() if not one.system})

    def get(self, name: str, *, at: str = "/type") -> JobType:
        """The type called ``name``.

        Raises:
            InvalidRequestError: There is none; the message lists those there are, with a pointer to ``at``.
        """
        try:
            return self._types[name]
        except KeyError:
            known = ", ".join(sorted(self._types))
            raise InvalidRequestError(
                f"there is no job type {name!r}; known are {known}",
                code="job_type.unknown",
                problems=(Problem(at, f"expected one of {known}, got {name!r}"),),
            ) from None

    def parse(self, job_type: JobType, config: dict[str, Any], *, at: str = "/config") -> Any:
        """``config`` as the type's model.

        Raises:
            InvalidRequestError: One problem per fault, with pointers below ``at``.
        """
        try:
            return job_type.config.model_validate(config)
        except ValidationError as error:
            raise misfit(job_type.name, error.errors(), config, at, options=job_type.options) from None

    def check_around(
        self, job_type: JobType, config: dict[str, Any], open_to: Callable[[Any], bool], *, at: str = "/config"
    ) -> None:
        """Check ``config`` as far as its values are known.

        Args:
            open_to: Whether a value holds something that is filled in later.
        Raises:
            InvalidRequestError: One problem per fault that no filling in can mend.
        """
        try:
            job_type.config.model_validate(config)
        except ValidationError as error:
            faults = [fault for fault in error.errors() if not may_be_mended(fault, config, open_to)]
            if faults:
                raise misfit(job_type.name, faults, config, at, options=job_type.options) from None


def discover(package: str) -> Registry:
    """Every ``JOB_TYPE`` in the modules of ``package`` and every entry point of the group ``haulier.job_types``.

    Raises:
        PluginError: An entry point cannot be loaded or leads to no job type, two types have one name, or one names a
            queue that is none.
    """
    root = importlib.import_module(package)
    found = {
        f"module {package}.{module.name}": importlib.import_module(f"{package}.{module.name}").JOB_TYPE
        for module in pkgutil.iter_modules(root.__path__)
    }
    found |= load(ENTRY_POINT_GROUP, JobType)
    types: dict[str, JobType] = {}
    for source, job_type in found.items():
        if job_type.name in types:
            raise PluginError(f"{source}: there is another job type called {job_type.name!r}")
        if job_type.queue not in QUEUES:
            raise PluginError(
                f"{source}: the queue of a job type is one of {', '.join(sorted(QUEUES))}, got {job_type.queue!r}"
            )
        types[job_type.name] = job_type
    return Registry(types)
