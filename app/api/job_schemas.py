"""What jobs look like on the native API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, post_load, pre_dump, validate

from app.domain.jobs import Job, JobEvent, OnDependencyFailure, Priority
from app.domain.lifecycle import JobState
from app.domain.retry import RetryPolicy
from app.web.fields import Instant

_PRIORITIES = [priority.name.lower() for priority in Priority]
YEAR_S = 31_536_000


class RetrySchema(Schema):
    """A retry policy: ``min(initial_interval_s * backoff_coefficient ** i, max_interval_s)``, i from 0."""

    max_attempts = fields.Integer(
        load_default=3, strict=True, validate=validate.Range(1, 1000), metadata={"description": "The first included."}
    )
    initial_interval_s = fields.Float(load_default=1.0, validate=validate.Range(0, 31_536_000))
    backoff_coefficient = fields.Float(load_default=2.0, validate=validate.Range(1, 1000))
    max_interval_s = fields.Float(load_default=60.0, validate=validate.Range(0, 31_536_000))
    jitter = fields.Boolean(load_default=True)
    transient_only = fields.Boolean(load_default=True, metadata={"description": "False retries every failure."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> RetryPolicy:
        return RetryPolicy(**data)


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


class SubmitJobSchema(OptionsSchema):
    """A job to be made."""

    type = fields.String(required=True, metadata={"example": "insert_csv_file"})
    config = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "Checked by the type's own schema (GET /v1/job-types)."},
    )
    run_after = Instant(load_default=None, allow_none=True, metadata={"description": "Not before then."})
    attempt_timeout_s = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(0, 31_536_000, min_inclusive=False)
    )
    retry = fields.Nested(RetrySchema, load_default=None, allow_none=True)
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
    needs_left = fields.Integer(metadata={"description": "Jobs it waits for that are not over."})

    @pre_dump
    def _body(self, job: Job, **_: Any) -> dict[str, Any]:
        return job_body(job)


def job_body(job: Job) -> dict[str, Any]:
    """The values of ``JobSchema``."""
    now = datetime.now(UTC)
    until = job.finished_at or now
    progress = job.progress
    return {
        **dict(zip(_SAME, _same_of(job), strict=True)),
        "priority": job.priority.name.lower(),
        "retry": job.retry.as_json(),
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


def job_json(job: Job) -> str:
    """What dumping ``JobSchema`` gives, as text, several times faster: the two hottest routes answer one job."""
    return _ENCODER.encode(job_body(job))


def plain(value: Any) -> str:
    """A time or an id as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def finished_job_json(job: Job) -> str:
    """What dumping ``FinishedJobSchema`` gives, as text."""
    return _ENCODER.encode({**job_body(job), "result": job.result})


_ENCODER = json.JSONEncoder(default=plain)
_SAME = tuple(name for name in JobSchema().fields if name not in {"priority", "retry", "duration_ms", "progress"})
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
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default=None)


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
