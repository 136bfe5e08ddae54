"""``/v1/batches``: many payloads as one job, a few of them at work at a time; and the children of any parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final
from uuid import UUID

from flask import Response, make_response, request
from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate

from app.api.accepted import KEY, accepted
from app.api.alike import AlikeField, AlikeReader
from app.api.deliveries import ResultsSinkSchema
from app.api.job_requests import BeginSchema, ChildSchema, OptionsSchema, RetrySchema
from app.api.job_schemas import FinishedJobSchema, JobSchema
from app.api.lines import MIMETYPE, misfit, read_lines
from app.domain.errors import InvalidRequestError, Problem
from app.domain.families import OnFailure
from app.domain.lifecycle import JobState
from app.services.families import MAX_PAYLOADS, Payload, SubmitBatch
from app.web.current import actor, services, tenant
from app.web.errors import problems
from app.web.paging import link_next, page

blueprint = Blueprint("batches", __name__, url_prefix="/v1", description="Jobs whose work is their children.")
_OWN: Final = ("name",)
"""What payloads hardly ever have in common, beside their configs."""


class PayloadSchema(ChildSchema):
    """One item: a job type and its config; ``max_concurrency`` is of its ``concurrency_key``, as any job's."""

    makes = Payload
    name = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 255))


class PayloadsField(AlikeField):
    """Payloads, in any number; most differ in their configs and names alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(PayloadSchema(), Payload.filled, own=_OWN, required=True, **options)


class BatchOptionsSchema(OptionsSchema, BeginSchema):
    """How a batch is run."""

    max_concurrency = fields.Integer(load_default=5, strict=True, validate=validate.Range(1, 10_000))
    max_payloads = fields.Integer(
        load_default=MAX_PAYLOADS,
        strict=True,
        validate=validate.Range(1, MAX_PAYLOADS),
        metadata={"description": "How far the batch may grow; stops payloads that add payloads without end."},
    )
    on_failure = fields.Enum(
        OnFailure,
        by_value=True,
        load_default=OnFailure.CONTINUE,
        validate=validate.OneOf(
            [OnFailure.CONTINUE, OnFailure.STOP], error="expected continue or stop-on-error, got {input}"
        ),
    )
    retry = fields.Nested(
        RetrySchema,
        load_default=None,
        allow_none=True,
        metadata={"description": "Of every payload, where it does not say otherwise itself."},
    )
    sink = fields.Nested(
        ResultsSinkSchema,
        load_default=None,
        allow_none=True,
        metadata={"description": "Where what the payloads came to goes when the batch is over."},
    )


class FirstLineSchema(BatchOptionsSchema):
    """The first line of a batch that is sent in lines."""

    count = fields.Integer(load_default=None, strict=True, validate=validate.Range(1, MAX_PAYLOADS))


class SubmitBatchSchema(BatchOptionsSchema):
    """A batch to be made."""

    payloads = PayloadsField(validate=validate.Length(1))


class ExtendSchema(Schema):
    """More payloads."""

    payloads = PayloadsField(validate=validate.Length(1, 10_000))


class TotalSchema(Schema):
    """How many payloads a batch has now."""

    total = fields.Integer()


class CountsSchema(Schema):
    """How many children stand where; they add up to ``total``."""

    total = fields.Integer()
    pending = fields.Integer(metadata={"description": "Not begun, or waiting for another attempt."})
    running = fields.Integer()
    completed = fields.Integer()
    failed = fields.Integer()
    cancelled = fields.Integer()


class ChildrenSchema(Schema):
    """A page of children in their order, each with what it came to."""

    items = fields.List(fields.Nested(FinishedJobSchema))
    next_cursor = fields.String(allow_none=True)


class ChildrenQuerySchema(Schema):
    """Which children."""

    class Meta:
        """Unknown arguments are refused."""

        unknown = "raise"

    state = fields.List(fields.String(validate=validate.OneOf(list(JobState))), load_default=list)
    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2_000_000_000))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


def _or_lines(view: Callable[[], Any]) -> Callable[[], Any]:
    """``view`` of a JSON body, or the like of a body of lines."""

    @wraps(view)
    def either() -> Any:
        return _create_from_lines() if request.mimetype == MIMETYPE else view()

    return either


@blueprint.route("/batches", methods=["POST"])
@_or_lines
@blueprint.arguments(SubmitBatchSchema())
@blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
@blueprint.doc(requestBody={"content": {MIMETYPE: {"schema": {"type": "string"}}}}, parameters=[KEY])
def create(body: dict[str, Any]) -> Any:
    """Accept a batch: all of its payloads, or none.

    As ``application/x-ndjson`` it is read as it comes, and may be larger: the first line holds the options, each
    further one a payload. A pointer then begins with the line's place, from 0. Without a Content-Length the options
    must hold ``count``, the number of payloads: it shows that none is missing.
    """
    return _created(SubmitBatch(tenant=tenant(), created_by=actor(), **body))


def _create_from_lines() -> Any:
    with services().upload_places.taken():
        lines = read_lines()
        options = _loaded(FirstLineSchema().load, 0, next(lines, None))
        payloads = _payloads(lines, options.pop("count"))
        batch = SubmitBatch(
            tenant=tenant(),
            created_by=actor(),
            payloads=payloads,
            payloads_at="",
            first_place=1,
            sink_at="/0/sink",
            **options,
        )
        return _created(batch)


def _payloads(lines: Iterator[Any], count: int | None) -> Iterator[Payload]:
    """The further lines, as many as the first one says: a body without a length may break off unnoticed."""
    if count is None and not request.content_length:
        raise InvalidRequestError(
            "the body has no Content-Length, so its first line must say how many payloads follow",
            problems=(Problem("/0/count", "expected the number of payloads, because the body has no Content-Length"),),
        )
    reader, place = AlikeReader(PayloadSchema(), Payload.filled, own=_OWN), 0
    for place, line in enumerate(lines, start=1):
        yield _loaded(reader.load, place, line)
    if place == 0:
        raise misfit(1, "expected a payload, got no second line")
    if count is not None and place != count:
        raise InvalidRequestError(
            f"the first line says {count:,} payloads, {place:,} came",
            problems=(Problem("/0/count", f"expected the number of payloads, {place}, got {count}"),),
        )


def _loaded(load: Callable[[Any], Any], place: int, value: Any) -> Any:
    if not isinstance(value, dict):
        raise misfit(place, f"expected an object, got {value!r}"[:500])
    try:
        return load(value)
    except ValidationError as error:
        raise InvalidRequestError(
            f"line {place + 1} of the body does not fit", problems=tuple(problems(error.messages, f"/{place}"))
        ) from None


def _created(batch: SubmitBatch) -> Response:
    submitted = services().families.create_batch(batch, idempotency_key=request.headers.get("Idempotency-Key"))
    return accepted(submitted.job, replayed=submitted.replayed)


@blueprint.route("/jobs/<uuid:job_id>/children")
class Children(MethodView):
    """The children of a job."""

    @blueprint.arguments(ChildrenQuerySchema(), location="query", unknown="raise")
    @blueprint.response(200, ChildrenSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> Any:
        """List children in their order; ``after`` is the place of the last one seen."""
        states = tuple(JobState(state) for state in query["state"])
        limit = query["limit"]
        found = services().families.children(tenant(), job_id, after=query["after"], limit=limit + 1, states=states)
        more = str(found[limit - 1].child_no) if len(found) > limit else None
        body = ChildrenSchema().dump(page(found[:limit], more))
        return link_next(make_response(body), more, argument="after")

    @blueprint.arguments(ExtendSchema())
    @blueprint.response(200, TotalSchema)
    def post(self, body: dict[str, Any], job_id: UUID) -> dict[str, int]:
        """Add payloads to a batch that is not over."""
        return {"total": services().families.extend(tenant(), job_id, body["payloads"])}


@blueprint.route("/jobs/<uuid:job_id>/children:count")
@blueprint.response(200, CountsSchema)
def count(job_id: UUID) -> Any:
    """How many children stand where."""
    return services().families.counts(tenant(), job_id)
