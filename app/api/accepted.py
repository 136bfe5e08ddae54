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
    return Response(job_json(job), 202, headers_of(job, replayed=replayed), mimetype="application/json")


def headers_of(job: Job, *, replayed: bool) -> dict[str, str]:
    """The headers of ``accepted``."""
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": "1"}
    return {**headers, "Idempotent-Replayed": "true"} if replayed else headers
