"""What is sent about jobs, in marshmallow's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, pre_load, validate, validates_schema

from app.domain.jobs import OnDependencyFailure, Priority, priority_of
from app.domain.lifecycle import JobState
from app.domain.resources import Resources, cpu_m, memory_mb
from app.domain.retry import RetryChanges
from app.persistence.job_lists import Filters
from app.web.fields import Duration, Instant

_PRIORITIES = [priority.name.lower() for priority in Priority]
YEAR_S = 31_536_000
MOST_WHYS = 100
IS_LABEL = validate.Regexp(r"^[^=]+=.*$", error="a label filter is 'name=value'")


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
        allow_none=True, metadata={"type": ["string", "integer"], "description": '`"1GB"`, or mebibytes.'}
    )
    memory_mb = fields.Integer(strict=True, allow_none=True, metadata={"description": "The same, in mebibytes."})
    cpu = fields.Raw(
        allow_none=True, metadata={"type": ["string", "number"], "description": '`2`, `"1.5"` or `"1500m"`.'}
    )
    priority = fields.String(validate=validate.OneOf(_PRIORITIES), metadata={"description": "The job's own priority."})

    @validates_schema
    def _once(self, data: dict[str, Any], **_: Any) -> None:
        if "memory" in data and "memory_mb" in data:
            raise ValidationError("expected memory or memory_mb, got both", "memory_mb")

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Resources:
        name = "memory" if "memory" in data else "memory_mb"
        return Resources(_read(memory_mb, data.get(name), name), _read(cpu_m, data.get("cpu"), "cpu"))


def _read(reader: Callable[[object], int], value: object, name: str) -> int | None:
    try:
        return None if value is None else reader(value)
    except ValueError as error:
        raise ValidationError(str(error), name) from None


class ResourcesField(fields.Nested):
    """Resources; none where nothing is said."""

    def __init__(self) -> None:
        super().__init__(ResourcesSchema, load_default=None, allow_none=True)

    def deserialize(self, *given: Any, **options: Any) -> Resources:
        """What is given, as a value of its own."""
        return super().deserialize(*given, **options) or Resources()


class HowSchema(Schema):
    """What a request for one job, or for a child, may say of how it runs."""

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
    resources = ResourcesField()

    @validates_schema
    def _has_key(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("max_concurrency") is not None and data.get("concurrency_key") is None:
            raise ValidationError("expected a concurrency_key beside it, got none", "max_concurrency")

    @pre_load
    def _one_priority(self, data: Any, **_: Any) -> Any:
        """A priority inside the resources is the job's."""
        resources = data.get("resources") if isinstance(data, dict) else None
        inside = resources.get("priority") if isinstance(resources, dict) else None
        if inside is None:
            return data
        if "priority" in data and data["priority"] != inside:
            said = f"expected {inside!r} as in resources, or one of the two alone, got {data['priority']!r}"
            raise ValidationError(said, "priority")
        return {**data, "priority": inside}


class SteeredSchema(OptionsSchema, HowSchema):
    """What a request for one job may say of it and of how it runs."""


class ChildSchema(HowSchema):
    """A child of a batch or a pipeline: a job of a type."""

    makes: ClassVar[Callable[..., Any]]
    type = fields.String(required=True, metadata={"example": "echo"})
    config = fields.Dict(keys=fields.String(), load_default=dict)
    priority = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf(_PRIORITIES),
        metadata={"description": "Its parent's, if it does not say."},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return type(self).makes(**{**data, "priority": priority_of(data["priority"])})


class BeginSchema(Schema):
    """When a job may begin."""

    run_after = Instant(load_default=None, allow_none=True, metadata={"description": "Not before then."})
    depends_on = fields.List(
        fields.UUID(),
        load_default=list,
        validate=validate.Length(0, 1000),
        metadata={"description": "Jobs, batches and pipelines that must be over before this one starts."},
    )
    on_dependency_failure = fields.Enum(
        OnDependencyFailure,
        by_value=True,
        load_default=OnDependencyFailure.CANCEL,
        metadata={"description": "What becomes of this job when one of them does not complete."},
    )

    @post_load
    def _without_doubles(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "depends_on": tuple(dict.fromkeys(data["depends_on"]))} if "depends_on" in data else data


class AmendSchema(Schema):
    """Another config for a job that is let go on."""

    config = fields.Dict(
        keys=fields.String(),
        load_default=None,
        allow_none=True,
        metadata={"description": "A merge patch (RFC 7396). What it changed stands in the job's events, both ways."},
    )


class SubmitJobSchema(SteeredSchema, BeginSchema):
    """A job to be made."""

    type = fields.String(required=True, metadata={"example": "insert_csv_file"})
    config = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "Checked by the type's own schema (GET /v1/job-types)."},
    )


class JobListQuerySchema(Schema):
    """Which jobs."""

    class Meta:
        """Unknown arguments are refused."""

        unknown = "raise"

    state = fields.List(fields.String(validate=validate.OneOf(list(JobState))), load_default=list)
    type = fields.List(fields.String(), load_default=list)
    label = fields.List(fields.String(validate=IS_LABEL), load_default=list)
    created_from = Instant(load_default=None)
    created_until = Instant(load_default=None)
    started_from = Instant(load_default=None)
    started_until = Instant(load_default=None)
    system = fields.Boolean(
        load_default=False, metadata={"description": "Instead of clients' jobs the system's own; for admins."}
    )
    why = fields.Boolean(
        load_default=False, metadata={"description": "Say of each job why it waits; for at most 100 at a time."}
    )
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default=None)

    @validates_schema
    def _few_whys(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("why") and data.get("limit", 0) > MOST_WHYS:
            raise ValidationError(f"expected at most {MOST_WHYS} with why, got {data['limit']}", "limit")


def filters_of(query: dict[str, Any]) -> Filters:
    """What ``JobListQuerySchema`` has read, as the list takes it."""
    return Filters(
        states=tuple(JobState(state) for state in query["state"]),
        types=tuple(query["type"]),
        labels=dict(label.split("=", 1) for label in query["label"]),
        created_from=query["created_from"],
        created_until=query["created_until"],
        started_from=query["started_from"],
        started_until=query["started_until"],
        of_system=query["system"],
    )


class WaitQuerySchema(Schema):
    """How long to wait for the end."""

    wait = fields.Float(load_default=0.0, validate=validate.Range(0, 60), metadata={"description": "Seconds."})


class JobQuerySchema(Schema):
    """Which jobs, by VQL."""

    vql = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={
            "description": "where, order_by, search_after (docs/vql.md) over the columns of jobs.",
            "example": {"where": {"range_query": {"must": {"error_count": {"gt": 0}}}}},
        },
    )
    limit = fields.Integer(load_default=None, allow_none=True, strict=True, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default=None, allow_none=True)


class BatchGetSchema(Schema):
    """Ids of jobs."""

    ids = fields.List(fields.UUID(), required=True, validate=validate.Length(1, 1000))


class TrailQuerySchema(Schema):
    """Which part of a trail."""

    class Meta:
        """Unknown arguments are let through."""

        unknown = EXCLUDE

    after = fields.Integer(load_default=0, validate=validate.Range(0), metadata={"description": "Event number."})
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
