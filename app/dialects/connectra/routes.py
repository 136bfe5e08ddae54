"""Connectra's routes: jobs, uploads, and search of contacts and companies."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, json, jsonify, request

from app.dialects.connectra import mapping
from app.dialects.connectra.mapping import ConnectraError
from app.domain.errors import HaulierError, MalformedRequestError
from app.domain.jobs import Origin, SubmitJob
from app.persistence.job_lists import Filters
from app.web.current import actor, principal, services, tenant

blueprint = Blueprint("connectra", __name__)


def error_form(error: HaulierError, status: int) -> Response:
    """Answer an error as the product does: 422 becomes 400."""
    return Response(
        json.dumps(mapping.error_body(error)), 400 if status == 422 else status, mimetype="application/json"
    )


@blueprint.before_request
def _authenticate() -> None:
    principal()


def _body() -> dict[str, Any]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise MalformedRequestError("the body must be a JSON object")
    return body


@blueprint.post("/common/jobs/create")
def create_job() -> Any:
    """Accept a job."""
    body = _body()
    job_type, data = body.get("job_type"), body.get("job_data")
    if not job_type or not isinstance(job_type, str):
        raise ConnectraError(mapping.MISSING_JOB_TYPE)
    if not isinstance(data, dict) or not data:
        raise ConnectraError(mapping.MISSING_JOB_DATA)
    retry_count, retry_interval, retry = mapping.retry_of(body)
    config = mapping.config_of(job_type, data, batch_rows=services().settings.connectra_batch_rows)
    job = (
        services()
        .jobs.submit(
            SubmitJob(
                tenant=tenant(),
                type=job_type,
                config=config,
                created_by=actor(),
                origin=Origin.CONNECTRA,
                retry=retry,
                dialect={"job_data": data, "retry_count": retry_count, "retry_interval": retry_interval},
            ),
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        .job
    )
    answer = jsonify(message="Job created successfully", success=True, uuid=str(job.id))
    return answer, 201, {"Location": f"/common/jobs/{job.id}"}


@blueprint.post("/common/jobs")
def list_jobs() -> Any:
    """List jobs, newest first."""
    body = _body()
    job_type = body.get("job_type")
    if job_type and job_type not in mapping.JOB_TYPES:
        raise ConnectraError(mapping.INVALID_JOB_TYPE % job_type)
    filters = Filters(
        any_of=mapping.states_of(body.get("status")), types=(job_type,) if job_type else mapping.JOB_TYPES
    )
    jobs = services().jobs.find(tenant(), filters, limit=mapping.limit_of(body.get("limit")))
    errors = services().jobs.last_errors(tenant(), [job.id for job in jobs])
    return jsonify(data=[mapping.job_body(job, errors.get(job.id, ())) for job in jobs], success=True)


@blueprint.get("/common/jobs/<uuid:job_id>")
def get_job(job_id: UUID) -> Any:
    """Read one job."""
    job = services().jobs.get(tenant(), job_id)
    errors = services().jobs.last_errors(tenant(), [job.id])
    return jsonify(data=mapping.job_body(job, errors.get(job.id, ())), success=True)


@blueprint.patch("/common/jobs/<uuid:job_id>")
def patch_job(job_id: UUID) -> Any:
    """Set ``run_after`` of a failed job: in the past, the retry runner takes it at once."""
    body = _body()
    if set(body) != {"run_after"}:
        raise ConnectraError("only 'run_after' of a job can be changed, got " + (", ".join(sorted(body)) or "nothing"))
    job = services().control.reschedule(tenant(), job_id, _instant(body["run_after"]), actor=actor())
    errors = services().jobs.last_errors(tenant(), [job.id])
    return jsonify(data=mapping.job_body(job, errors.get(job.id, ())), success=True)


def _instant(value: Any) -> datetime:
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is not None:
            return instant
    except (TypeError, ValueError):
        pass
    raise ConnectraError(f"'run_after' must be an ISO 8601 time with its zone, got {value!r}")


@blueprint.get("/common/upload-url")
def upload_url() -> Any:
    """A presigned URL to PUT a file to, and the key it will have."""
    filename = request.args.get("filename")
    if not filename:
        raise ConnectraError(mapping.MISSING_FILENAME)
    ticket = services().uploads.create(tenant(), filename=filename, created_by=actor())
    hours = services().settings.upload_ttl_s // 3600
    return jsonify(success=True, upload_url=ticket.url, s3_key=ticket.s3_key, expires_in=f"{hours}h0m0s")


@blueprint.post("/<any(contacts, companies):service>/", strict_slashes=False)
def search(service: str) -> Any:
    """Rows that match a VQL query."""
    vql = _body()
    limit = mapping.limit_of(vql.pop("limit", None))
    page = services().records.query(tenant(), mapping.table_of(service), vql, limit=limit)
    return jsonify(data=page.rows, search_after=page.after, cursor=page.next_cursor, success=True)


@blueprint.post("/<any(contacts, companies):service>/count")
def count(service: str) -> Any:
    """How many rows match a VQL query."""
    vql = {name: value for name, value in _body().items() if name == "where"}
    return jsonify(count=services().records.count(tenant(), mapping.table_of(service), vql), success=True)


@blueprint.get("/common/<string:service>/filters")
def filters(service: str) -> Any:
    """What can be filtered by."""
    table = services().tables.get(tenant(), mapping.table_of(service))
    return jsonify(data=services().records.filters(tenant(), table.name), success=True)


@blueprint.post("/common/<string:service>/filters/data")
def filter_data(service: str) -> Any:
    """Values of one filter, for a picker."""
    body = _body()
    key = body.get("filter_key")
    if not isinstance(key, str):
        raise ConnectraError("the 'filter_key' field is required")
    values = services().records.filter_values(
        tenant(),
        mapping.table_of(service),
        key,
        search=body.get("search_text"),
        limit=mapping.limit_of(body.get("limit")),
    )
    return jsonify(data=values, success=True)


@blueprint.post("/common/batch-upsert")
def batch_upsert() -> Any:
    """Upsert contacts with their companies."""
    return _upsert("contacts", companions=True)


@blueprint.post("/<any(contacts, companies):service>/batch-upsert")
def batch_upsert_service(service: str) -> Any:
    """Upsert rows of one service."""
    return _upsert(mapping.table_of(service))


def _upsert(table: str, *, companions: bool = False) -> Any:
    rows = _body().get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConnectraError("the 'data' field is required and must be a list of objects")
    report = services().upserts.upsert(tenant(), table, rows, companions=companions)
    return jsonify(success=True, **report)
