"""The answer to every request that makes a job."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from app.api.job_schemas import job_json
from app.domain.jobs import Job

KEY: Final[dict[str, Any]] = {"in": "header", "name": "Idempotency-Key", "schema": {"type": "string"}}
"""How the document tells of the header that makes a request safe to send again."""


def accepted(job: Job, *, replayed: bool = False) -> Response:
    """202, the job and where it is; ``replayed`` when an earlier request with the same key made it."""
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": "1"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(job_json(job), 202, headers, mimetype="application/json")
