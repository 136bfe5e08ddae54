"""``/v1/events`` and a job's own: pages in order, or a stream of server-sent events."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from flask import Response, make_response, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.job_requests import TrailQuerySchema
from app.api.job_schemas import EventSchema, TrailSchema, job_body, plain, trail_body
from app.domain.errors import MalformedRequestError
from app.domain.jobs import Job, JobEvent
from app.services.feed import Item, Wanted
from app.web.current import services, tenant
from app.web.paging import link_next

blueprint = Blueprint("events", __name__, url_prefix="/v1", description="What happened to jobs, in order.")
STREAM = "text/event-stream"
_AS_STREAM = {"parameters": [{"in": "header", "name": "Last-Event-ID", "schema": {"type": "string"}}]}


class FeedQuerySchema(Schema):
    """Which events."""

    class Meta:
        """Unknown arguments are refused."""

        unknown = "raise"

    after = fields.Integer(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0, 2**62),
        metadata={"description": "Sequence number of the last event seen. A stream without it begins now."},
    )
    type = fields.List(fields.String(validate=validate.Length(1, 63)), load_default=list)
    job_id = fields.UUID(load_default=None, metadata={"description": "Only what happens to this job."})
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class FeedEventSchema(EventSchema):
    """One event of any job of the tenant."""

    seq = fields.Integer(metadata={"description": "Its place among the tenant's events, from 1 without a gap."})
    job_id = fields.UUID()


class FeedSchema(Schema):
    """A page of events, in order."""

    items = fields.List(fields.Nested(FeedEventSchema))
    next_after = fields.Integer(allow_none=True)


@blueprint.route("/events")
@blueprint.arguments(FeedQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, FeedSchema)
@blueprint.doc(**_AS_STREAM)
def feed(query: dict[str, Any]) -> Any:
    """Read the tenant's events, or with ``Accept: text/event-stream`` follow them, progress between them."""
    wanted = Wanted(tenant(), query["job_id"], types=tuple(query["type"]))
    if _wants_stream():
        return _stream(wanted, _last_seen(query["after"], services().feed.last(wanted.tenant)))
    limit = query["limit"]
    found = services().feed.page(wanted, after=query["after"] or 0, limit=limit + 1)
    more = found[limit - 1].seq if len(found) > limit else None
    body = FeedSchema().dump({"items": found[:limit], "next_after": more})
    return link_next(make_response(body), None if more is None else str(more), argument="after")


@blueprint.route("/jobs/<uuid:job_id>/events")
@blueprint.arguments(TrailQuerySchema(), location="query")
@blueprint.response(200, TrailSchema)
@blueprint.doc(**_AS_STREAM)
def trail(query: dict[str, Any], job_id: UUID) -> Any:
    """Read a job's audit trail, or with ``Accept: text/event-stream`` follow it, progress between its lines."""
    found = services().jobs.events(tenant(), job_id, after=query["after"], limit=query["limit"])
    if _wants_stream():
        return _stream(Wanted(tenant(), job_id), _last_seen(None, 0))
    return trail_body(found, query["limit"])


def _wants_stream() -> bool:
    accepted = request.accept_mimetypes
    return accepted[STREAM] > 0 and accepted[STREAM] > accepted["application/json"]


def _last_seen(asked: int | None, otherwise: int) -> int:
    sent = request.headers.get("Last-Event-ID")
    if sent is None or sent == "":
        return otherwise if asked is None else asked
    if not sent.isascii() or not sent.isdigit() or len(sent) > 18:
        raise MalformedRequestError(
            f"Last-Event-ID is the id of an event of this stream, a whole number, got {sent!r}",
            code="request.bad_last_event_id",
        )
    return int(sent)


def _stream(wanted: Wanted, after: int) -> Response:
    items = services().feed.stream(wanted, after=after)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = Response(map(_line, items), 200, headers, mimetype=STREAM)
    response.call_on_close(items.close)
    return response


def _line(item: Item) -> str:
    if isinstance(item, JobEvent):
        body = json.dumps(FeedEventSchema().dump(item), default=plain)
        return f"id: {item.seq}\nevent: {item.type}\ndata: {body}\n\n"
    if isinstance(item, Job):
        body = json.dumps({"job_id": str(item.id), "progress": job_body(item)["progress"]}, default=plain)
        return f"event: progress\ndata: {body}\n\n"
    return ": nothing new\n\n"
