"""What schedules look like on the native API."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import Schema, fields, pre_dump, validate

from app.api.batches import PayloadsField, SubmitBatchSchema
from app.api.job_requests import BeginSchema, SteeredSchema
from app.api.pipelines import SubmitPipelineSchema
from app.domain.calendars import MissedPolicy, OverlapPolicy
from app.domain.families import Kind
from app.domain.schedules import LONGEST_WINDOW_S, MAX_PAYLOADS, Schedule, Template

_NAME = validate.Length(1, 255)
_WINDOW = validate.Range(0, LONGEST_WINDOW_S)
_TEMPLATE = "A job; or, with `type` `batch` or `pipeline`, what their POST takes but for when they begin."
_RULES = {
    "type": "object",
    "description": "`intervals`, `cron`, `calendars`, `at`, `timezone`, `start`, `end`, `jitter`; none is on demand.",
    "example": {"cron": ["0 2 * * *"], "timezone": "Europe/Zurich"},
}


class TemplateSchema(SteeredSchema):
    """The job that each fire makes."""

    type = fields.String(required=True, metadata={"example": "export_csv_file"})
    config = fields.Dict(keys=fields.String(), load_default=dict)


class BatchTemplateSchema(SubmitBatchSchema):
    """The batch that each fire makes."""

    class Meta:
        """A fire says when."""

        exclude = tuple(BeginSchema().fields)

    type = fields.Constant(Kind.BATCH)
    payloads = PayloadsField(validate=validate.Length(1, MAX_PAYLOADS))


class PipelineTemplateSchema(SubmitPipelineSchema):
    """The pipeline that each fire makes."""

    class Meta:
        """A fire says when."""

        exclude = tuple(BeginSchema().fields)

    type = fields.Constant(Kind.PIPELINE)


_FAMILIES: Final[dict[Any, type[Schema]]] = {Kind.BATCH: BatchTemplateSchema, Kind.PIPELINE: PipelineTemplateSchema}


class TemplateField(fields.Nested):
    """A template of what its ``type`` says."""

    def __init__(self, **options: Any) -> None:
        super().__init__(TemplateSchema, metadata={"description": _TEMPLATE}, **options)

    def _load(self, value: Any, partial: Any = None) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in _FAMILIES:
            return super()._load(value, partial)
        return _FAMILIES[kind]().load(value)


class CreateScheduleSchema(Schema):
    """A schedule to be made."""

    name = fields.String(required=True, validate=_NAME)
    template = TemplateField(required=True)
    rules = fields.Raw(load_default=None, allow_none=True, metadata=_RULES)
    missed_policy = fields.Enum(MissedPolicy, by_value=True, load_default=MissedPolicy.LAST)
    missed_window_s = fields.Float(load_default=3600.0, validate=_WINDOW, metadata={"description": "Only for `all`."})
    overlap_policy = fields.Enum(OverlapPolicy, by_value=True, load_default=OverlapPolicy.ALLOW)
    paused = fields.Boolean(load_default=False)


class ChangeScheduleSchema(Schema):
    """What is to be changed of a schedule; what is left out stays. A template and rules are replaced whole."""

    name = fields.String(validate=_NAME)
    template = TemplateField()
    rules = fields.Raw(allow_none=True, metadata=_RULES)
    missed_policy = fields.Enum(MissedPolicy, by_value=True)
    missed_window_s = fields.Float(validate=_WINDOW)
    overlap_policy = fields.Enum(OverlapPolicy, by_value=True)


class ScheduleSchema(Schema):
    """A schedule."""

    id = fields.UUID()
    name = fields.String()
    template = fields.Dict()
    rules = fields.Dict()
    words = fields.String(metadata={"description": "The rules in a sentence."})
    missed_policy = fields.String()
    missed_window_s = fields.Float()
    overlap_policy = fields.String()
    paused = fields.Boolean()
    next_fire_at = fields.AwareDateTime(
        allow_none=True, metadata={"description": "Null when it is paused, on demand or over."}
    )
    version = fields.Integer(metadata={"description": "Counts its changes; the ETag."})
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()

    @pre_dump
    def _body(self, schedule: Schedule, **_: Any) -> dict[str, Any]:
        return {
            **{name: getattr(schedule, name) for name in _SAME},
            "template": _template(schedule.template),
            "rules": schedule.rules.as_json(),
            "words": schedule.rules.words(),
            "next_fire_at": schedule.alarm_at,
        }


def _template(template: Template) -> dict[str, Any]:
    """A template as it could be sent."""
    plan = template.plan
    what: dict[str, Any]
    if plan is None:
        what = {
            "config": template.config,
            "retry": template.retry.as_json(),
            "attempt_timeout_s": template.attempt_timeout_s,
            "concurrency_key": template.concurrency_key,
            "max_concurrency": template.max_concurrency,
            "resources": template.resources.as_json(),
        }
    elif plan.kind is Kind.BATCH:
        payloads = [
            {name: value for name, value in member.as_json().items() if name not in {"queue", "depends_on"}}
            for member in plan.members
        ]
        what = {**template.config, "payloads": payloads}
    else:
        what = {**template.config, "name": template.name}
    return {
        "type": template.type,
        **what,
        "priority": template.priority.name.lower(),
        "timeout_s": template.timeout_s,
        "labels": template.labels,
    }


_SAME = tuple(ScheduleSchema().fields.keys() - {"template", "rules", "words", "next_fire_at"})


class SchedulePageSchema(Schema):
    """A page of schedules, newest first."""

    items = fields.List(fields.Nested(ScheduleSchema))
    next_cursor = fields.String(allow_none=True)


class PageQuerySchema(Schema):
    """Which page."""

    limit = fields.Integer(load_default=50, validate=validate.Range(1, 1000))
    cursor = fields.String(load_default=None)


class RunsQuerySchema(Schema):
    """Whether the schedule's jobs that are not over are meant too."""

    runs = fields.Boolean(load_default=True)


class CountQuerySchema(Schema):
    """How many fires."""

    count = fields.Integer(load_default=5, validate=validate.Range(1, 100))


class PreviewRulesSchema(Schema):
    """Rules to be looked at."""

    rules = fields.Raw(required=True, metadata=_RULES)
    count = fields.Integer(load_default=5, strict=True, validate=validate.Range(1, 100))


class FireSchema(Schema):
    """One fire to come."""

    at = fields.AwareDateTime()
    local = fields.AwareDateTime(metadata={"description": "The same instant on a clock in the rules' zone."})


class PreviewSchema(Schema):
    """What rules mean."""

    words = fields.String()
    timezone = fields.String()
    fires = fields.List(fields.Nested(FireSchema))

    @pre_dump
    def _fires(self, preview: Any, **_: Any) -> dict[str, Any]:
        fires = [{"at": instant, "local": local} for instant, local in preview.fires]
        return {"words": preview.words, "timezone": preview.timezone, "fires": fires}
