"""``/v1/jobs:batch``: many independent jobs in one request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate

from app.api.accepted import KEY
from app.api.job_requests import SubmitJobSchema
from app.domain.jobs import SubmitJob
from app.services.bulk import MAX_JOBS
from app.web.current import actor, services, tenant

blueprint = Blueprint("bulk", __name__, url_prefix="/v1", description="Many independent jobs in one request.")


class RequestsField(fields.List[Any]):
    """Requests for jobs. Most differ in their configs alone, so other options are read once for all that are alike."""

    def __init__(self, **options: Any) -> None:
        super().__init__(fields.Nested(SubmitJobSchema()), **options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        # Before any is looked at: what is wrong with a million of them would fill the answer.
        self._validate(value)
        read: dict[str, dict[str, Any]] = {}
        loaded, errors = [], {}
        for place, item in enumerate(value):
            try:
                loaded.append(self._load(item, read))
            except ValidationError as error:
                errors[place] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded

    def _load(self, item: Any, read: dict[str, dict[str, Any]]) -> dict[str, Any]:
        config = item.get("config", {}) if isinstance(item, dict) else None
        if not isinstance(config, dict):
            whole: dict[str, Any] = self.inner.deserialize(item)
            return whole
        options = {name: value for name, value in item.items() if name != "config"}
        alike = json.dumps(options, sort_keys=True)
        if alike not in read:
            read[alike] = self.inner.deserialize(options)
        return {**read[alike], "config": config}


class SubmitManySchema(Schema):
    """Jobs to be made."""

    jobs = RequestsField(required=True, validate=validate.Length(1, MAX_JOBS))


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
    who, where = actor(), tenant()
    submitted = services().bulk.submit(
        [SubmitJob(tenant=where, created_by=who, **job) for job in body["jobs"]],
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    headers = {"Idempotent-Replayed": "true"} if submitted.replayed else {}
    ids = json.dumps({"ids": [str(job_id) for job_id in submitted.ids]})
    return Response(ids, 202, headers, mimetype="application/json")
