"""``/v1/line-keys``: keys that exports encrypt lines with, shared with those who read them."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.web.current import actor, require_admin, services, tenant

blueprint = Blueprint("line_keys", __name__, url_prefix="/v1", description="Keys of encrypted lines.")


class LineKeySchema(Schema):
    """A key, without itself."""

    name = fields.String(
        required=True,
        metadata={"description": "Stands in every line as key_id: 1 to 63 letters, digits, '-' and '_'."},
    )
    created_by = fields.String(dump_only=True)
    created_at = fields.AwareDateTime(dump_only=True)


class NewLineKeySchema(LineKeySchema):
    """A key and its name."""

    key = fields.String(
        required=True,
        load_only=True,
        validate=validate.Length(1, 100),
        metadata={"description": "32 bytes as base64; sealed at rest, never shown again.", "format": "password"},
    )


class LineKeysSchema(Schema):
    """The tenant's keys."""

    items = fields.List(fields.Nested(LineKeySchema))


@blueprint.route("/line-keys", endpoint="LineKeys")
class AllKeys(MethodView):
    """The tenant's keys."""

    @blueprint.response(200, LineKeysSchema)
    def get(self) -> Any:
        """List the names of the tenant's keys."""
        return {"items": services().line_keys.of_tenant(tenant())}

    @blueprint.arguments(NewLineKeySchema)
    @blueprint.response(201, LineKeySchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Keep a key; one of the same name is not replaced, as lines bear it."""
        require_admin()
        return services().line_keys.add(tenant(), body["name"], body["key"], actor=actor())


@blueprint.route("/line-keys/<string(maxlength=63):line_key>", methods=["DELETE"])
@blueprint.response(204)
def delete(line_key: str) -> None:
    """Forget a key."""
    require_admin()
    services().line_keys.remove(tenant(), line_key, actor=actor())
