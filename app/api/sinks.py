"""``/v1/sinks``: buckets of the tenant's own, into which exports may go."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.domain.sinks import Credentials
from app.web.current import actor, require_admin, services, tenant

blueprint = Blueprint("sinks", __name__, url_prefix="/v1", description="Buckets of the tenant's own.")


class SinkPlaceSchema(Schema):
    """Where a sink is."""

    bucket = fields.String(
        required=True, validate=validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$(?!\n)")
    )
    region = fields.String(load_default="us-east-1", validate=validate.Regexp(r"^[a-z0-9-]{1,40}$(?!\n)"))
    endpoint = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Regexp(r"^https?://[^/?#@\s]+/?$(?!\n)", error="an endpoint is http(s)://host[:port]"),
        metadata={"description": "Null for AWS."},
    )
    prefix = fields.String(
        load_default="",
        validate=validate.Regexp(r"^([A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*)?$(?!\n)"),
        metadata={"description": "What keys are relative to."},
    )


class NewSinkSchema(SinkPlaceSchema):
    """A sink and what opens it."""

    access_key_id = fields.String(required=True, load_only=True, validate=validate.Length(1, 200))
    secret_access_key = fields.String(
        required=True,
        load_only=True,
        validate=validate.Length(1, 200),
        metadata={"description": "Sealed at rest; no answer, log line or error ever holds it.", "format": "password"},
    )


class SinkSchema(SinkPlaceSchema):
    """A sink; never what opens it."""

    name = fields.String()
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class SinksSchema(Schema):
    """The tenant's sinks."""

    items = fields.List(fields.Nested(SinkSchema))


@blueprint.route("/sinks")
@blueprint.response(200, SinksSchema)
def listed() -> Any:
    """List the tenant's sinks."""
    return {"items": services().sinks.of_tenant(tenant())}


@blueprint.route("/sinks/<string(maxlength=63):sink>", endpoint="Sink")
class OneSink(MethodView):
    """One sink."""

    @blueprint.response(200, SinkSchema)
    def get(self, sink: str) -> Any:
        """Read where a sink is."""
        return services().sinks.get(tenant(), sink)

    @blueprint.arguments(NewSinkSchema)
    @blueprint.response(200, SinkSchema)
    def put(self, body: dict[str, Any], sink: str) -> Any:
        """Make or replace a sink; an object is written there and removed before anything is stored."""
        require_admin()
        opens = Credentials(body.pop("access_key_id"), body.pop("secret_access_key"))
        return services().sinks.put(tenant(), sink, credentials=opens, actor=actor(), **body)

    @blueprint.response(204)
    def delete(self, sink: str) -> None:
        """Forget a sink and its credentials; exports that name it fail from then on."""
        require_admin()
        services().sinks.remove(tenant(), sink, actor=actor())
