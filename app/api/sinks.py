"""``/v1/sinks``: buckets and receivers of the tenant's own, into which exports and results may go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.domain.sinks import Credentials, Receiver
from app.security.signed_posts import new_secret
from app.web.current import actor, require_admin, services, tenant

blueprint = Blueprint("sinks", __name__, url_prefix="/v1", description="Places of the tenant's own.")


class NewSinkSchema(Schema):
    """A bucket and what opens it, or the ``url`` of a receiver of results."""

    bucket = fields.String(
        validate=validate.Regexp(
            r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$(?!\n)",
            error="a bucket's name has 3 to 255 letters, digits, '.', '_' and '-', got {input!r}",
        )
    )
    region = fields.String(
        validate=validate.Regexp(
            r"^[a-z0-9-]{1,40}$(?!\n)", error="a region is lower-case letters, digits and '-', got {input!r}"
        ),
        metadata={"description": "us-east-1 if left out."},
    )
    endpoint = fields.String(
        allow_none=True,
        validate=validate.Regexp(r"^https?://[^/?#@\s]+/?$(?!\n)", error="an endpoint is http(s)://host[:port]"),
        metadata={"description": "Null for AWS."},
    )
    prefix = fields.String(
        validate=validate.Regexp(
            r"^([A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*)?$(?!\n)",
            error="a prefix is names of letters, digits, '.', '_', '=' and '-' with '/' between, got {input!r}",
        ),
        metadata={"description": "What keys are relative to."},
    )
    access_key_id = fields.String(validate=validate.Length(1, 200))
    secret_access_key = fields.String(
        validate=validate.Length(1, 200),
        metadata={"description": "Sealed at rest; no answer, log line or error ever holds it.", "format": "password"},
    )
    url = fields.String(
        validate=validate.Length(1, 8192),
        metadata={"description": "http or https, a public address; only its origin is ever shown again."},
    )
    secret = fields.String(
        validate=validate.Length(1, 200),
        metadata={
            "description": "What posts to the url are signed with: `whsec_` and 24 to 64 bytes as base64. One is made "
            "when none is given, and is in the answer.",
            "format": "password",
        },
    )

    @validates_schema
    def _is_one(self, data: dict[str, Any], **_: Any) -> None:
        is_receiver = "url" in data
        faults = {name: ["Missing data for required field."] for name in _NEEDED - data.keys() if not is_receiver}
        unfit = data.keys() - _OF_RECEIVERS if is_receiver else data.keys() & _OF_RECEIVERS
        faults |= {name: ["expected a bucket and what opens it, or a url and its secret"] for name in unfit}
        if faults:
            raise ValidationError(faults)


_OF_RECEIVERS: Final = frozenset({"url", "secret"})
_NEEDED: Final = frozenset({"bucket", "access_key_id", "secret_access_key"})


class SinkSchema(Schema):
    """A sink; never what opens it. Null is what it has not."""

    name = fields.String()
    bucket = fields.String(allow_none=True)
    region = fields.String(allow_none=True)
    endpoint = fields.String(allow_none=True)
    prefix = fields.String(allow_none=True)
    origin = fields.String(allow_none=True, metadata={"description": "Scheme, host and port of a receiver."})
    created_by = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class MadeSinkSchema(SinkSchema):
    """A sink as it was stored."""

    secret = fields.String(metadata={"description": "Made for a receiver; it is never shown again."})


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
    @blueprint.response(200, MadeSinkSchema)
    def put(self, body: dict[str, Any], sink: str) -> Any:
        """Make or replace a sink; into a bucket an object is written and removed before anything is stored."""
        require_admin()
        if "url" in body:
            return _receiver(sink, **body)
        opens = Credentials(body.pop("access_key_id"), body.pop("secret_access_key"))
        return services().sinks.put(tenant(), sink, credentials=opens, actor=actor(), **body)

    @blueprint.response(204)
    def delete(self, sink: str) -> None:
        """Forget a sink and its credentials; jobs that name it fail from then on."""
        require_admin()
        services().sinks.remove(tenant(), sink, actor=actor())


def _receiver(name: str, *, url: str, secret: str | None = None) -> Any:
    made = {} if secret else {"secret": new_secret()}
    receiver = Receiver(url, secret or made["secret"])
    stored = services().sinks.put_webhook(tenant(), name, receiver=receiver, actor=actor())
    return {**asdict(stored), **made}
