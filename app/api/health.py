"""``/v1/health``: whether the process lives, and whether its stores answer."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.web.current import services

blueprint = Blueprint("health", __name__, url_prefix="/v1", description="Health of the service.")


class HealthSchema(Schema):
    """``ok`` when every store answers, ``degraded`` when jobs are accepted but something is away."""

    status = fields.String()
    version = fields.String()
    checks = fields.Dict(keys=fields.String(), values=fields.String())


@blueprint.route("/health")
@blueprint.doc(security=[])
@blueprint.response(200, HealthSchema)
@blueprint.alt_response(503, schema=HealthSchema, description="Postgres does not answer: no job can be accepted.")
def health() -> Any:
    """Say whether jobs can be accepted (200) and which stores answer; needs no key."""
    report = services().health.report()
    return report.body, report.status


@blueprint.route("/health/live")
@blueprint.doc(security=[])
@blueprint.response(200, HealthSchema)
def live() -> Any:
    """Say that the process lives; looks at nothing else and needs no key."""
    return {"status": "ok", "version": services().health.version, "checks": {}}
