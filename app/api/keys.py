"""``/v1/keys``: API keys of the tenant, for admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.domain.access import ApiKey, Role
from app.web.current import actor, require_admin, services, tenant
from app.web.fields import Instant

blueprint = Blueprint("keys", __name__, url_prefix="/v1", description="API keys of the tenant.")


class KeySchema(Schema):
    """A key without its secret."""

    id = fields.String()
    role = fields.String()
    label = fields.String()
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    expires_at = fields.AwareDateTime(allow_none=True)
    revoked_at = fields.AwareDateTime(allow_none=True)


class NewKeySchema(KeySchema):
    """A key with its text, which is shown this once."""

    key = fields.String()


class KeysSchema(Schema):
    """The tenant's keys."""

    items = fields.List(fields.Nested(KeySchema))


class CreateKeySchema(Schema):
    """A key to be made."""

    role = fields.String(load_default="member", validate=validate.OneOf(list(Role)))
    label = fields.String(load_default="", validate=validate.Length(0, 200))
    expires_at = Instant(load_default=None, allow_none=True)


@blueprint.route("/keys")
class Keys(MethodView):
    """The collection."""

    @blueprint.response(200, KeysSchema)
    def get(self) -> Any:
        """List the tenant's keys, revoked ones too."""
        require_admin()
        return {"items": services().keys.list(tenant())}

    @blueprint.arguments(CreateKeySchema())
    @blueprint.response(201, NewKeySchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Make a key; its text is shown in this answer and never again."""
        require_admin()
        key, record = services().keys.create(
            tenant(), Role(body["role"]), label=body["label"], created_by=actor(), expires_at=body["expires_at"]
        )
        return {**asdict(record), "key": key}


@blueprint.route("/keys/<string:key_id>", methods=["DELETE"])
@blueprint.response(200, KeySchema)
def revoke(key_id: str) -> ApiKey:
    """End a key now."""
    require_admin()
    return services().keys.revoke(tenant(), key_id)
