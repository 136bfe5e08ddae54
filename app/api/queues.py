"""``/v1/queues`` and ``/v1/workers``: how full they are, and their steering, by who runs the installation."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.services.steering import MOST_SLOTS
from app.web.current import actor, require_admin, require_operator, services, tenant

blueprint = Blueprint("queues", __name__, url_prefix="/v1", description="Queues and the workers that serve them.")


class QueueSchema(Schema):
    """A queue; its numbers are over all tenants."""

    name = fields.String()
    paused = fields.Boolean()
    queued = fields.Integer(metadata={"description": "Admitted: the next free worker takes them."})
    open = fields.Integer(metadata={"description": "Not admitted: due later, or waiting for a place."})
    running = fields.Integer()
    slots = fields.Integer(metadata={"description": "Places of live workers."})
    wanted_slots = fields.Integer(allow_none=True, metadata={"description": "Asked for at run time, per worker."})
    oldest_wait_s = fields.Float(allow_none=True, metadata={"description": "How long the oldest has been due."})


class QueuesSchema(Schema):
    """Every queue."""

    items = fields.List(fields.Nested(QueueSchema))


class SlotSchema(Schema):
    """One place in which a worker runs one job at a time."""

    id = fields.UUID()
    queue = fields.String()
    process = fields.String()
    host = fields.String()
    pid = fields.Integer()
    may_kill = fields.Boolean(metadata={"description": "Whether its process is its own, so that :terminate kills."})
    draining = fields.Boolean()
    started_at = fields.AwareDateTime()
    lease_until = fields.AwareDateTime()
    job_ids = fields.List(fields.UUID())


class SlotsSchema(Schema):
    """Every slot."""

    items = fields.List(fields.Nested(SlotSchema))


class ConcurrencySchema(Schema):
    """How many slots."""

    slots = fields.Integer(required=True, strict=True, validate=validate.Range(1, MOST_SLOTS))


class ChangeSchema(Schema):
    """One change that a person made."""

    id = fields.Integer()
    at = fields.AwareDateTime()
    actor = fields.String()
    what = fields.String()
    before = fields.Raw(allow_none=True)
    after = fields.Raw(allow_none=True)


class ChangesSchema(Schema):
    """A page of changes, newest first."""

    items = fields.List(fields.Nested(ChangeSchema))
    next_before = fields.Integer(allow_none=True)


class ChangesQuerySchema(Schema):
    """Which changes."""

    before = fields.Integer(load_default=None, validate=validate.Range(1, 2**63 - 1))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


@blueprint.route("/queues")
@blueprint.response(200, QueuesSchema)
def queues() -> Any:
    """List the queues and how full they are."""
    return {"items": services().steering.queues()}


@blueprint.route("/queues/<string:queue>:pause", methods=["POST"])
@blueprint.response(200, QueueSchema)
def pause(queue: str) -> Any:
    """Keep jobs of a queue from starting and from being tried again; those that run go on."""
    require_operator()
    return services().steering.pause(tenant(), queue, paused=True, actor=actor())


@blueprint.route("/queues/<string:queue>:resume", methods=["POST"])
@blueprint.response(200, QueueSchema)
def resume(queue: str) -> Any:
    """Let jobs of a paused queue start."""
    require_operator()
    return services().steering.pause(tenant(), queue, paused=False, actor=actor())


@blueprint.route("/workers")
@blueprint.response(200, SlotsSchema)
def workers() -> Any:
    """List the workers' slots, their leases and the jobs they hold."""
    require_operator()
    return {"items": services().steering.workers()}


@blueprint.route("/workers/<string:queue>/concurrency", methods=["PUT"])
@blueprint.arguments(ConcurrencySchema())
@blueprint.response(200, QueueSchema)
def set_concurrency(body: dict[str, Any], queue: str) -> Any:
    """Give each worker of a queue so many slots, now and whenever one starts; no job is ended for it."""
    require_operator()
    return services().steering.set_slots(tenant(), queue, body["slots"], actor=actor())


@blueprint.route("/changes")
@blueprint.arguments(ChangesQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, ChangesSchema)
def changes(query: dict[str, Any]) -> Any:
    """Read who changed queues, limits and workers, newest first."""
    require_admin()
    limit = query["limit"]
    found = services().steering.changes(tenant(), limit=limit, before=query["before"])
    return {"items": found, "next_before": found[-1].id if len(found) == limit else None}
