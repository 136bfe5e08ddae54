"""What jobs look like on the native API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_dump,
    pre_load,
    validate,
    validates_schema,
)

from app.domain.jobs import Job, JobEvent, OnDependencyFailure, Priority
from app.domain.lifecycle import JobState
from app.domain.resources import Resources, cpu_m, memory_mb
from app.domain.retry import RetryChanges
from app.domain.waiting import Cause, Why
from app.web.fields import Duration, Instant

_PRIORITIES = [priority.name.lower() for priority in Priority]
YEAR_S = 31_536_000
MOST_WHYS = 100


class RetrySchema(Schema):
    """A retry policy: ``min(initial_interval * backoff_coefficient ** i, maximum_interval)``, i from 0.

    What is left out is as in the job type's own policy.
    """

    maximum_attempts = fields.Integer(
        strict=True, validate=validate.Range(1, 1000), metadata={"description": "The first included."}
    )
    initial_interval = Duration(attribute="initial_interval_s")
    backoff_coefficient = fields.Float(validate=validate.Range(1, 1000))
    maximum_interval = Duration(attribute="maximum_interval_s")
    jitter = fields.Boolean(metadata={"description": "Draws each wait evenly from zero to the computed one."})
    transient_only = fields.Boolean(
        metadata={"description": "False retries every failure, but for those that can never pass."}
    )
    non_retryable = fields.List(
        fields.String(validate=validate.Length(1, 100)),
        validate=validate.Length(0, 50),
        metadata={"description": "Codes of errors, or names of exception classes, that end the job at once."},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> RetryChanges:
        if "non_retryable" in data:
            data["non_retryable"] = tuple(data["non_retryable"])
        return RetryChanges(data)


class OptionsSchema(Schema):
    """What every request for work may say of the job it makes."""

    priority = fields.String(load_default="normal", validate=validate.OneOf(_PRIORITIES))
    timeout_s = fields.Float(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0, YEAR_S, min_inclusive=False),
        metadata={"description": "From submission or fire to the end; over it the job is cancelled, reason timeout."},
    )
    labels = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 63)),
        values=fields.String(validate=validate.Length(0, 255)),
        load_default=dict,
        validate=validate.Length(0, 32),
    )

    @post_load
    def _priority(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "priority": Priority[data["priority"].upper()]}


class ResourcesSchema(Schema):
    """What a job may use; one that says so runs in a process of its own."""

    memory = fields.Raw(
        data_key="memory", metadata={"type": ["string", "integer"], "description": '`"1GB"`, or mebibytes.'}
    )
    memory_mb = fields.Integer(strict=True, metadata={"description": "The same, in mebibytes."})
    cpu = fields.Raw(metadata={"type": ["string", "number"], "description": '`2`, `"1.5"` or `"1500m"`.'})
    priority = fields.String(validate=validate.OneOf(_PRIORITIES), metadata={"description": "The job's own priority."})

    @validates_schema
    def _once(self, data: dict[str, Any], **_: Any) -> None:
        if "memory" in data and "memory_mb" in data:
            raise ValidationError("expected memory or memory_mb, got both", "memory_mb")

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        memory = data.get("memory", data.get("memory_mb"))
        name = "memory" if "memory" in data else "memory_mb"
        return {
            "priority": data.get("priority"),
            "resources": Resources(_read(memory_mb, memory, name), _read(cpu_m, data.get("cpu"), "cpu")),
        }


def _read(reader: Callable[[object], int], value: object, name: str) -> int | None:
    try:
        return None if value is None else reader(value)
    except ValueError as error:
        raise ValidationError(str(error), name) from None


class SteeredSchema(OptionsSchema):
    """What a request for one job may say of how it runs."""

    attempt_timeout_s = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(0, YEAR_S, min_inclusive=False)
    )
    retry = fields.Nested(RetrySchema, load_default=None, allow_none=True)
    concurrency_key = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 255),
        metadata={"description": "Limits of this key, or of its class (what is before the first colon), hold for it."},
    )
    max_concurrency = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "It is admitted only while fewer jobs of its key are queued or running."},
    )
    resources = fields.Nested(ResourcesSchema, load_default=None, allow_none=True)

    @validates_schema
    def _has_key(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("max_concurrency") is not None and data.get("concurrency_key") is None:
            raise ValidationError("expected a concurrency_key beside it, got none", "max_concurrency")

    @pre_load
    def _one_priority(self, data: Any, **_: Any) -> Any:
        """A priority inside the resources is the job's, unless the job has one."""
        resources = data.get("resources") if isinstance(data, dict) else None
        if isinstance(resources, dict) and resources.get("priority") is not None:
            return {"priority": resources["priority"], **data}
        return data

    @post_load
    def _resources(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "resources": (data["resources"] or {}).get("resources", Resources())}


class SubmitJobSchema(SteeredSchema):
    """A job to be made."""

    type = fields.String(required=True, metadata={"example": "insert_csv_file"})
    config = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "Checked by the type's own schema (GET /v1/job-types)."},
    )
    run_after = Instant(load_default=None, allow_none=True, metadata={"description": "Not before then."})
    depends_on = fields.List(
        fields.UUID(),
        load_default=list,
        validate=validate.Length(0, 1000),
        metadata={"description": "Jobs that must be over before this one starts."},
    )
    on_dependency_failure = fields.Enum(
        OnDependencyFailure,
        by_value=True,
        load_default=OnDependencyFailure.CANCEL,
        metadata={"description": "What becomes of this job when one of them does not complete."},
    )

    @post_load
    def _without_doubles(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "depends_on": tuple(dict.fromkeys(data["depends_on"]))}


class ProgressSchema(Schema):
    """How far a job is."""

    percent = fields.Float(metadata={"description": "0 to 100; 100 only when completed."})
    rows_done = fields.Integer()
    rows_total = fields.Integer(allow_none=True)
    bytes_done = fields.Integer()
    bytes_total = fields.Integer(allow_none=True)
    stage = fields.String(allow_none=True, metadata={"description": "Of a pipeline: the stages at work."})
    parts_done = fields.Integer(metadata={"description": "Payloads or stages that are over."})
    parts_total = fields.Integer(allow_none=True, metadata={"description": "Null for a job that is no parent."})
    rows_per_s = fields.Float(allow_none=True)
    eta = fields.AwareDateTime(allow_none=True)


class ShownResourcesSchema(Schema):
    """What a job may use."""

    memory_mb = fields.Integer(allow_none=True, metadata={"description": "Mebibytes it may add to its process."})
    cpu = fields.Float(allow_none=True, metadata={"description": "Processors reserved for it."})


class ReasonSchema(Schema):
    """One thing a job waits for."""

    cause = fields.String(validate=validate.OneOf(list(Cause)))
    message = fields.String()
    data = fields.Dict(metadata={"description": "Which limit and how much of it is used, which jobs, until when."})


class WhySchema(Schema):
    """Why a job waits."""

    reasons = fields.List(fields.Nested(ReasonSchema))
    position = fields.Integer(allow_none=True, metadata={"description": "Its place in its queue, from 1."})
    likely_start_at = fields.AwareDateTime(
        allow_none=True, metadata={"description": "By how long jobs took in the last ten minutes; null if unknown."}
    )


class JobSchema(Schema):
    """A job."""

    id = fields.UUID()
    number = fields.Integer(metadata={"description": "Counts jobs over the installation."})
    type = fields.String()
    state = fields.String(validate=validate.OneOf(list(JobState)))
    outcome = fields.String(allow_none=True)
    priority = fields.String()
    queue = fields.String()
    config = fields.Dict()
    labels = fields.Dict()
    origin = fields.String()
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()
    run_after = fields.AwareDateTime(allow_none=True)
    deadline_at = fields.AwareDateTime(allow_none=True)
    admitted_at = fields.AwareDateTime(allow_none=True)
    started_at = fields.AwareDateTime(allow_none=True)
    finished_at = fields.AwareDateTime(allow_none=True)
    duration_ms = fields.Integer(allow_none=True, metadata={"description": "From the start; live while it runs."})
    attempts = fields.Integer(metadata={"description": "Tries that count against the policy."})
    rescues = fields.Integer(metadata={"description": "Workers lost since the last checkpoint progress."})
    starts = fields.Integer(metadata={"description": "Attempts and rescues in all: those of GET /v1/jobs/ID/attempts."})
    attempt_timeout_s = fields.Float(allow_none=True)
    retry = fields.Dict()
    paused = fields.Boolean()
    cancel_requested = fields.Boolean()
    cancel_reason = fields.String(allow_none=True)
    progress = fields.Nested(ProgressSchema)
    counters = fields.Dict(keys=fields.String(), values=fields.Integer())
    error_count = fields.Integer()
    error = fields.Dict(allow_none=True)
    clone_of = fields.UUID(allow_none=True)
    schedule_id = fields.UUID(allow_none=True, metadata={"description": "The schedule that made it."})
    parent_id = fields.UUID(allow_none=True)
    child_no = fields.Integer(allow_none=True, metadata={"description": "Its place among its parent's children."})
    name = fields.String(allow_none=True)
    concurrency_key = fields.String(allow_none=True)
    max_concurrency = fields.Integer(allow_none=True)
    resources = fields.Nested(ShownResourcesSchema)
    why_waiting = fields.Nested(
        WhySchema,
        allow_none=True,
        metadata={"description": "Of a job that waits: in the answer that reads it, and in lists with `why=true`."},
    )
    needs_left = fields.Integer(metadata={"description": "Jobs it waits for that are not over."})

    @pre_dump
    def _body(self, job: Job, **_: Any) -> dict[str, Any]:
        return job_body(job)


class TerminatedSchema(Schema):
    """A job that was terminated."""

    fate = fields.String(
        validate=validate.OneOf(["ended", "killed", "asked"]),
        metadata={
            "description": "`ended`: no worker held it. `killed`: its process is, within two seconds. `asked`: it "
            "shares its process with other jobs, so it is not killed but stops at its next checkpoint, as by :cancel."
        },
    )
    job = fields.Nested(JobSchema)


def job_body(job: Job, why: Why | None = None) -> dict[str, Any]:
    """The values of ``JobSchema``."""
    now = datetime.now(UTC)
    until = job.finished_at or now
    progress = job.progress
    return {
        **dict(zip(_SAME, _same_of(job), strict=True)),
        "priority": job.priority.name.lower(),
        "retry": job.retry.as_json(),
        "resources": shown_resources(job.resources),
        "why_waiting": None if why is None else asdict(why),
        "duration_ms": int((until - job.started_at).total_seconds() * 1000) if job.started_at else None,
        "progress": {
            "percent": progress.percent(ended=job.state is JobState.COMPLETED),
            "rows_done": progress.rows_done,
            "rows_total": progress.rows_total,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
            "stage": progress.stage,
            "parts_done": progress.parts_done,
            "parts_total": progress.parts_total,
            "rows_per_s": progress.rows_per_s(job.started_at, until) if job.started_at else None,
            "eta": progress.eta(job.started_at, now) if job.started_at and not job.is_terminal else None,
        },
    }


def shown_resources(resources: Resources) -> dict[str, Any]:
    """Resources as they are shown."""
    return {"memory_mb": resources.memory_mb, "cpu": resources.cpu_m / 1000 if resources.cpu_m else None}


def job_json(job: Job, why: Why | None = None) -> str:
    """What dumping ``JobSchema`` gives, as text, several times faster: the two hottest routes answer one job."""
    return _ENCODER.encode(job_body(job, why))


def plain(value: Any) -> str:
    """A time or an id as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def finished_job_json(job: Job) -> str:
    """What dumping ``FinishedJobSchema`` gives, as text."""
    return _ENCODER.encode({**job_body(job), "result": job.result})


_ENCODER = json.JSONEncoder(default=plain)
_WORKED_OUT = {"priority", "retry", "duration_ms", "progress", "resources", "why_waiting"}
_SAME = tuple(name for name in JobSchema().fields if name not in _WORKED_OUT)
_same_of = attrgetter(*_SAME)


class FinishedJobSchema(JobSchema):
    """A job with what it came to."""

    result = fields.Dict(allow_none=True)

    @pre_dump
    def _body(self, job: Job, **_: Any) -> dict[str, Any]:
        return {**job_body(job), "result": job.result}


class JobPageSchema(Schema):
    """A page of jobs, newest first."""

    items = fields.List(fields.Nested(JobSchema))
    next_cursor = fields.String(allow_none=True)


class JobListQuerySchema(Schema):
    """Which jobs."""

    class Meta:
        """Unknown arguments are refused."""

        unknown = "raise"

    state = fields.List(fields.String(validate=validate.OneOf(list(JobState))), load_default=list)
    type = fields.List(fields.String(), load_default=list)
    label = fields.List(
        fields.String(validate=validate.Regexp(r"^[^=]+=.*$", error="a label filter is 'name=value'")),
        load_default=list,
    )
    created_from = Instant(load_default=None)
    created_until = Instant(load_default=None)
    started_from = Instant(load_default=None)
    started_until = Instant(load_default=None)
    why = fields.Boolean(
        load_default=False, metadata={"description": "Say of each job why it waits; for at most 100 at a time."}
    )
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default=None)

    @validates_schema
    def _few_whys(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("why") and data.get("limit", 0) > MOST_WHYS:
            raise ValidationError(f"expected at most {MOST_WHYS} with why, got {data['limit']}", "limit")


class WaitQuerySchema(Schema):
    """How long to wait for the end."""

    wait = fields.Float(load_default=0.0, validate=validate.Range(0, 60), metadata={"description": "Seconds."})


class BatchGetSchema(Schema):
    """Ids of jobs."""

    ids = fields.List(fields.UUID(), required=True, validate=validate.Length(1, 1000))


class BatchItemSchema(Schema):
    """One answer of a batch get; ``job`` is null when there is none of this id."""

    id = fields.UUID()
    job = fields.Nested(JobSchema, allow_none=True)


class BatchSchema(Schema):
    """The jobs in the order asked."""

    items = fields.List(fields.Nested(BatchItemSchema))
    all_terminal = fields.Boolean()
    all_succeeded = fields.Boolean()


class TrailQuerySchema(Schema):
    """Which part of a trail."""

    class Meta:
        """Unknown arguments are let through."""

        unknown = EXCLUDE

    after = fields.Integer(load_default=0, validate=validate.Range(0), metadata={"description": "Event number."})
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class EventSchema(Schema):
    """One line of the audit trail."""

    number = fields.Integer()
    type = fields.String()
    at = fields.AwareDateTime()
    actor = fields.String()
    source = fields.String(allow_none=True, metadata={"description": "The state before."})
    target = fields.String(metadata={"description": "The state after."})
    fence = fields.Integer()
    data = fields.Dict()


class TrailSchema(Schema):
    """A page of a trail, in order."""

    items = fields.List(fields.Nested(EventSchema))
    next_after = fields.Integer(allow_none=True)


def trail_body(events: list[JobEvent], limit: int) -> dict[str, Any]:
    """The values of ``TrailSchema``."""
    return {"items": events, "next_after": events[-1].number if len(events) == limit else None}


class JobErrorSchema(Schema):
    """One failure of the job."""

    at = fields.AwareDateTime()
    attempt = fields.Integer(allow_none=True)
    code = fields.String()
    message = fields.String()
    hint = fields.String(allow_none=True)
    stage = fields.String(allow_none=True)
    errors = fields.List(fields.Dict(), metadata={"description": "Faults in the config, each with a pointer."})
    number = fields.Integer(metadata={"description": "Of the event that tells it."})


class ErrorPageSchema(Schema):
    """A page of failures, oldest first."""

    items = fields.List(fields.Nested(JobErrorSchema))
    next_after = fields.Integer(allow_none=True)


class ResultSchema(Schema):
    """What a job came to."""

    job_id = fields.UUID()
    state = fields.String()
    outcome = fields.String(allow_none=True)
    record_count = fields.Integer()
    error_count = fields.Integer()
    duration_ms = fields.Integer(allow_none=True)
    counters = fields.Dict()
    data = fields.Dict(allow_none=True)
    file_url = fields.String(
        allow_none=True, metadata={"description": "Downloads an export without a key; fresh with every answer."}
    )
