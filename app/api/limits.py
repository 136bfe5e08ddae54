"""``/v1/limits``: how many jobs of a tenant, a type or a key may be at work, and how many may begin in a period."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields, pre_dump, validate

from app.api.job_requests import YEAR_S
from app.domain.limits import Limit, LimitKind
from app.web.current import actor, is_operator, require_admin, require_operator, services, tenant

blueprint = Blueprint("limits", __name__, url_prefix="/v1", description="Limits of concurrency and rate.")
_MOST = 1_000_000


class BoundsSchema(Schema):
    """What a limit bounds: at least one of concurrency and rate."""

    max_concurrency = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(0, _MOST),
        metadata={"description": "Jobs queued and running together, at most; 0 lets none begin."},
    )
    rate = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(1, _MOST),
        metadata={"description": "Jobs admitted within any `period_s` seconds, at most; each attempt is one."},
    )
    period_s = fields.Float(load_default=None, allow_none=True, validate=validate.Range(0, YEAR_S, min_inclusive=False))


class LimitSchema(BoundsSchema):
    """A limit."""

    kind = fields.String(validate=validate.OneOf(list(LimitKind)))
    name = fields.String(metadata={"description": "The tenant, the type, the key or class of keys."})
    updated_by = fields.String()
    updated_at = fields.AwareDateTime()

    @pre_dump
    def _body(self, limit: Limit, **_: Any) -> dict[str, Any]:
        name = limit.tenant if limit.kind is LimitKind.TENANT else limit.name
        return {**{one: getattr(limit, one) for one in _SAME}, "name": name}


_SAME = tuple(LimitSchema().fields.keys() - {"name"})


class LimitsSchema(Schema):
    """The limits that hold for the tenant's jobs."""

    items = fields.List(fields.Nested(LimitSchema))


@blueprint.route("/limits")
@blueprint.response(200, LimitsSchema)
def limits() -> Any:
    """List the limits that hold for the tenant's jobs; who runs the installation sees every tenant's own."""
    require_admin()
    return {"items": services().steering.limits(tenant(), all_tenants=is_operator())}


@blueprint.route("/limits/<any(tenant, type, key):kind>/<string(maxlength=255):limited>", endpoint="Limit")
class OneLimit(MethodView):
    """One limit."""

    @blueprint.arguments(BoundsSchema())
    @blueprint.response(200, LimitSchema)
    def put(self, body: dict[str, Any], kind: str, limited: str) -> Any:
        """Set a limit: of a key of the own tenant; of a tenant or a type by who runs the installation."""
        _require_right(kind)
        return services().steering.put_limit(tenant(), LimitKind(kind), limited, actor=actor(), **body)

    @blueprint.response(204)
    def delete(self, kind: str, limited: str) -> None:
        """Take a limit away."""
        _require_right(kind)
        services().steering.delete_limit(tenant(), LimitKind(kind), limited, actor=actor())


def _require_right(kind: str) -> None:
    require_admin() if kind == LimitKind.KEY else require_operator()
