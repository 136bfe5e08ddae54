"""``/v1/jobs/{id}:revert``: undo."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import request
from flask_smorest import Blueprint

from app.api.accepted import KEY, accepted
from app.api.job_schemas import JobSchema
from app.web.current import actor, services, tenant

blueprint = Blueprint("reverts", __name__, url_prefix="/v1", description="Undo of what jobs wrote.")


@blueprint.route("/jobs/<uuid:job_id>:revert", methods=["POST"])
@blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
@blueprint.doc(parameters=[KEY])
def revert(job_id: UUID) -> Any:
    """Submit a job that takes back what a revertible job wrote, but for rows that others changed since."""
    submitted = services().reverts.revert(
        tenant(), job_id, actor=actor(), idempotency_key=request.headers.get("Idempotency-Key")
    )
    return accepted(submitted.job, replayed=submitted.replayed)
