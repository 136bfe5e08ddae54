"""``/v1/jobs:batch``: many independent jobs in one request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api.accepted import KEY
from app.api.alike import AlikeField
from app.api.job_requests import SubmitJobSchema
from app.domain.jobs import SubmitJob
from app.services.bulk import MAX_JOBS, Variant
from app.web.current import actor, services, tenant

blueprint = Blueprint("bulk", __name__, url_prefix="/v1", description="Many independent jobs in one request.")


class Asked(NamedTuple):
    """One job as it was asked for; ``options`` is the same object for all that are alike."""

    options: dict[str, Any]
    config: dict[str, Any]
    labels: dict[str, str]


def _asked(options: dict[str, Any], *, config: dict[str, Any], labels: dict[str, str] | None = None) -> Asked:
    return Asked(options, config, labels or {})


class SubmitManySchema(Schema):
    """Jobs to be made."""

    jobs = AlikeField(SubmitJobSchema(), _asked, own=("labels",), required=True, validate=validate.Length(1, MAX_JOBS))


class SubmittedManySchema(Schema):
    """The jobs that were made."""

    ids = fields.List(fields.UUID(), metadata={"description": "In the order of the request."})


@blueprint.route("/jobs:batch", methods=["POST"])
@blueprint.arguments(SubmitManySchema())
@blueprint.response(202, SubmittedManySchema)
@blueprint.doc(parameters=[KEY])
def create(body: dict[str, Any]) -> Any:
    """Accept up to 10,000 independent jobs: all of them, or none.

    Each is as ``POST /v1/jobs`` takes it, and a job of its own from then on. The pointer of a fault names the one at
    fault (``/jobs/7/config/s3_key``). The same ``Idempotency-Key`` with the same body answers with the same ids.
    """
    submitted = services().bulk.submit(
        list(_variants(body["jobs"])), idempotency_key=request.headers.get("Idempotency-Key")
    )
    headers = {"Idempotent-Replayed": "true"} if submitted.replayed else {}
    ids = json.dumps({"ids": [str(job_id) for job_id in submitted.ids]})
    return Response(ids, 202, headers, mimetype="application/json")


def _variants(jobs: Sequence[Asked]) -> Iterator[Variant]:
    who, where = actor(), tenant()
    made: dict[int, SubmitJob] = {}
    for options, config, labels in jobs:
        if id(options) not in made:
            made[id(options)] = SubmitJob(tenant=where, created_by=who, **options)
        yield Variant(made[id(options)], config, labels)
