"""What jobs look like on the native API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields, pre_dump, validate

from app.domain.jobs import Job, JobEvent
from app.domain.lifecycle import JobState
from app.domain.measures import eta_range
from app.domain.waiting import Cause, Why


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
    eta_earliest = fields.AwareDateTime(
        allow_none=True,
        metadata={"description": "With eta_latest: where the end lies eight times of ten, by past jobs of the type."},
    )
    eta_latest = fields.AwareDateTime(allow_none=True)


class MetricsSchema(Schema):
    """What a job cost and how fast it went; live while it runs."""

    duration_ms = fields.Integer()
    rows_per_s = fields.Float(allow_none=True)
    bytes_per_s = fields.Float(allow_none=True)
    cpu_s = fields.Float(
        allow_none=True, metadata={"description": "Of all its runs; null while it runs, or shares its process."}
    )
    peak_rss_mb = fields.Float(allow_none=True)
    s3_s = fields.Float(allow_none=True, metadata={"description": "Waited for S3, summed over its threads."})
    database_s = fields.Float(
        allow_none=True, metadata={"description": "Waited for Postgres, summed over its threads."}
    )
    stages = fields.Dict(
        keys=fields.String(), values=fields.Float(), allow_none=True, metadata={"description": "Seconds by stage."}
    )
    eta_error = fields.Float(
        allow_none=True,
        metadata={"description": "How far off the end foretold midway was, as a part of the whole; 0.1: too late."},
    )


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
    metrics = fields.Nested(MetricsSchema, allow_none=True, metadata={"description": "Null before it starts."})
    why_waiting = fields.Nested(
        WhySchema,
        allow_none=True,
        metadata={"description": "Of a job that waits: in the answer that reads it, and in lists with `why=true`."},
    )
    needs_left = fields.Integer(metadata={"description": "Jobs it waits for that are not over."})
    query = fields.Dict(
        allow_none=True,
        metadata={"description": "Of a query that became this job: the mode asked for, the reason, the estimate."},
    )

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


def job_body(job: Job, why: Why | None = None, past_ratios: Sequence[float] = ()) -> dict[str, Any]:
    """The values of ``JobSchema``; ``past_ratios`` as for ``eta_range``."""
    now = datetime.now(UTC)
    until = job.finished_at or now
    progress = job.progress
    eta = earliest = latest = None
    if job.started_at and not job.is_terminal:
        eta = progress.eta(job.started_at, now)
        earliest, latest = eta_range(progress, job.started_at, now, past_ratios) or (None, None)
    return {
        **dict(zip(_SAME, _same_of(job), strict=True)),
        "priority": job.priority.name.lower(),
        "retry": job.retry.as_json(),
        "resources": job.resources.as_json(),
        "why_waiting": None if why is None else asdict(why),
        "query": job.dialect.get("query"),
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
            "eta": eta,
            "eta_earliest": earliest,
            "eta_latest": latest,
        },
        "metrics": metrics_body(job, until) if job.started_at else None,
    }


def metrics_body(job: Job, until: datetime) -> dict[str, Any]:
    """The values of ``MetricsSchema`` for a job that has started."""
    started_at = job.started_at or until
    seconds = (until - started_at).total_seconds()
    measures, bytes_done = job.measures, job.progress.bytes_done
    spent = measures.spent or {}
    return {
        "duration_ms": int(seconds * 1000),
        "rows_per_s": job.progress.rows_per_s(started_at, until),
        "bytes_per_s": bytes_done / seconds if bytes_done and seconds > 0 else None,
        **{name: spent.get(name) for name in ("cpu_s", "peak_rss_mb", "s3_s", "database_s")},
        "stages": measures.stages(job.progress.stage, until),
        "eta_error": measures.eta_error(started_at, until) if job.state is JobState.COMPLETED else None,
    }


def job_json(job: Job, why: Why | None = None, past_ratios: Sequence[float] = ()) -> str:
    """What dumping ``JobSchema`` gives, as text, several times faster: the two hottest routes answer one job."""
    return _ENCODER.encode(job_body(job, why, past_ratios))


def plain(value: Any) -> str:
    """A time or an id as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def finished_job_json(job: Job) -> str:
    """What dumping ``FinishedJobSchema`` gives, as text."""
    return _ENCODER.encode({**job_body(job), "result": job.result})


_ENCODER = json.JSONEncoder(default=plain)
_WORKED_OUT = {"priority", "retry", "duration_ms", "progress", "resources", "why_waiting", "query", "metrics"}
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


class BatchItemSchema(Schema):
    """One answer of a batch get; ``job`` is null when there is none of this id."""

    id = fields.UUID()
    job = fields.Nested(JobSchema, allow_none=True)


class BatchSchema(Schema):
    """The jobs in the order asked."""

    items = fields.List(fields.Nested(BatchItemSchema))
    all_terminal = fields.Boolean()
    all_succeeded = fields.Boolean()
    mean_percent = fields.Float(metadata={"description": "Of those that are there; each job counts the same."})
    weighted_percent = fields.Float(
        allow_none=True, metadata={"description": "Each row counts the same; null while some job has no total."}
    )


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
    docs_url = fields.String(metadata={"description": "Where the code is told about."})
    stage = fields.String(allow_none=True)
    cause = fields.String(allow_none=True, metadata={"description": "What it was raised from."})
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
    metrics = fields.Nested(MetricsSchema, allow_none=True, metadata={"description": "Null if it never started."})
    data = fields.Dict(allow_none=True)
    inline = fields.String(
        allow_none=True,
        metadata={"description": "What an export of one small text file wrote; null for any other: see file_url."},
    )
    file_url = fields.String(
        allow_none=True, metadata={"description": "Downloads an export without a key; fresh with every answer."}
    )
