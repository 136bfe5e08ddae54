"""``/v1/statistics``: how long jobs took and how fast they went; ``/metrics``: the installation for Prometheus."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from flask import Blueprint as PlainBlueprint
from flask import Response
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.exposition import CONTENT_TYPE, exposition
from app.persistence.statistics import BOUNDS_S, Ended
from app.web.current import require_operator, services, tenant

blueprint = Blueprint("statistics", __name__, url_prefix="/v1", description="Figures over many jobs.")
metrics_blueprint = PlainBlueprint("metrics", __name__)
_WINDOWS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


class StatisticsQuerySchema(Schema):
    """Of which time."""

    window = fields.String(load_default="24h", validate=validate.OneOf(list(_WINDOWS)))


class QuantilesSchema(Schema):
    """The middle, and what 95 of 100 do not exceed."""

    p50 = fields.Float()
    p95 = fields.Float()


class BucketSchema(Schema):
    """Jobs that took no longer than this; those above all bounds are in ``jobs`` alone."""

    up_to_s = fields.Float()
    jobs = fields.Integer()


class TypeStatisticsSchema(Schema):
    """Jobs of one type that ended in one state."""

    type = fields.String()
    state = fields.String()
    jobs = fields.Integer()
    jobs_per_min = fields.Float()
    rows = fields.Integer()
    duration_s = fields.Nested(QuantilesSchema, allow_none=True)
    rows_per_s = fields.Nested(QuantilesSchema, allow_none=True, metadata={"description": "Of jobs with rows."})
    histogram = fields.List(fields.Nested(BucketSchema))


class StatisticsSchema(Schema):
    """Figures by type and state."""

    window = fields.String()
    items = fields.List(fields.Nested(TypeStatisticsSchema))


@blueprint.route("/statistics")
@blueprint.arguments(StatisticsQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, StatisticsSchema)
def read(query: dict[str, Any]) -> Any:
    """Tell durations and rates of the tenant's jobs that ended lately; up to a quarter of a minute old."""
    window = _WINDOWS[query["window"]]
    found = services().statistics.ended(tenant(), window)
    return {"window": query["window"], "items": [_body(one, window) for one in found]}


def _body(one: Ended, window: timedelta) -> dict[str, Any]:
    return {
        "type": one.type,
        "state": one.state,
        "jobs": one.jobs,
        "jobs_per_min": round(one.jobs / (window.total_seconds() / 60), 4),
        "rows": one.rows,
        "duration_s": _quantiles(one.duration_s),
        "rows_per_s": _quantiles(one.rows_per_s),
        "histogram": [{"up_to_s": bound, "jobs": jobs} for bound, jobs in zip(BOUNDS_S, one.histogram, strict=True)],
    }


def _quantiles(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return None if pair is None else {"p50": pair[0], "p95": pair[1]}


@metrics_blueprint.get("/metrics")
def metrics() -> Response:
    """The installation for Prometheus; asks for an operator's key, as ``Authorization: Bearer``."""
    require_operator()
    return Response(exposition(services().statistics.snapshot()), content_type=CONTENT_TYPE)
