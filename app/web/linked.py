"""What the query of a route may hold that links lead to."""

from __future__ import annotations

from marshmallow import Schema, fields


class LinkedSchema(Schema):
    """What makes a link do without a key; it is checked before the route is reached."""

    tenant = fields.String(load_only=True, metadata={"description": "Of a link."})
    expires = fields.String(load_only=True, metadata={"description": "Of a link: seconds since 1970."})
    signature = fields.String(load_only=True, metadata={"description": "Of a link."})
