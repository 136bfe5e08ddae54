"""Connectra's words: states, errors and the shapes of its bodies. Tables and pure functions; decides nothing.

Source: docs/wire/connectra.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.domain.errors import HaulierError, InvalidRequestError
from app.domain.jobs import Job
from app.domain.lifecycle import JobState
from app.domain.retry import RetryPolicy, fixed_interval

RETRY_INTERVAL_S: Final = 30
JOB_TYPES: Final = ("insert_csv_file", "export_csv_file")
TABLES: Final[Mapping[str, str]] = {
    "contact": "contacts",
    "contacts": "contacts",
    "company": "companies",
    "companies": "companies",
}
DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 100
MAX_PAGE: Final = 10

WORD: Final[Mapping[JobState, str]] = {
    JobState.BLOCKED: "open",
    JobState.OPEN: "open",
    JobState.QUEUED: "in_queue",
    JobState.RUNNING: "processing",
    JobState.RETRY_WAIT: "failed",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
}
RETRY_WORD: Final[Mapping[JobState, str]] = {JobState.QUEUED: "retry_in_queued"}
"""What a state is called at a retry, where that differs."""

STATES: Final[Mapping[str, tuple[tuple[JobState, bool | None], ...]]] = {
    "open": ((JobState.OPEN, None), (JobState.BLOCKED, None)),
    "in_queue": ((JobState.QUEUED, False),),
    "retry_in_queued": ((JobState.QUEUED, True),),
    "processing": ((JobState.RUNNING, None),),
    "retrying": ((JobState.RUNNING, True),),
    "completed": ((JobState.COMPLETED, None),),
    "failed": ((JobState.RETRY_WAIT, None), (JobState.FAILED, None), (JobState.CANCELLED, None)),
}
"""What a filter word finds; the flag says whether the job must be at a retry."""

MISSING_JOB_TYPE: Final = (
    "ERR_MISSING_JOB_TYPE: the 'job_type' field is required; specify a valid job type such as 'insert_csv_file' or "
    "'export_csv_file'"
)
MISSING_JOB_DATA: Final = (
    "ERR_MISSING_JOB_DATA: the 'job_data' field is required; include the necessary payload for job execution"
)
INVALID_RETRY_COUNT: Final = (
    "ERR_INVALID_RETRY_COUNT: 'retry_count' must be a non-negative integer; use 0 for no retries or a positive number "
    "for retry attempts"
)
MISSING_SELECT_COLUMNS: Final = (
    "ERR_MISSING_SELECT_COLUMNS: 'select_columns' is required for export operations; specify at least one column to "
    "include in the output"
)
INVALID_LIMIT: Final = (
    "ERR_INVALID_LIMIT: 'limit' must be a non-negative integer; use 0 for default or specify a positive value"
)
LIMIT_TOO_HIGH: Final = (
    "ERR_LIMIT_TOO_HIGH: 'limit' exceeds the maximum of 100 records per request; reduce the value or use pagination"
)
UNKNOWN_SERVICE: Final = (
    "ERR_UNKNOWN_SERVICE: the provided service identifier is not recognized; use 'contacts' or 'companies'"
)
INVALID_JOB_TYPE: Final = (
    "ERR_INVALID_JOB_TYPE: job type '%s' is not recognized; supported types are 'insert_csv_file' and 'export_csv_file'"
)
INVALID_STATUS: Final = "ERR_INVALID_STATUS: status '%s' is not recognized; use " + ", ".join(STATES)
INVALID_RETRY_INTERVAL: Final = (
    "ERR_INVALID_RETRY_INTERVAL: 'retry_interval' must be a non-negative integer number of seconds"
)
MISSING_FILENAME: Final = "filename query parameter is required"


class ConnectraError(InvalidRequestError):
    """A request the product refuses with 400 and a text of its own."""

    status = 400


def table_of(service: Any) -> str:
    """The table behind a service's name; ConnectraError for another."""
    if not isinstance(service, str) or service not in TABLES:
        raise ConnectraError(UNKNOWN_SERVICE)
    return TABLES[service]


def limit_of(value: Any) -> int:
    """A list's limit: 25 when absent or 0; ConnectraError outside 0 to 100."""
    if value is None or value == 0:
        return DEFAULT_LIMIT
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConnectraError(INVALID_LIMIT)
    if value > MAX_LIMIT:
        raise ConnectraError(LIMIT_TOO_HIGH)
    return value


def retry_of(body: Mapping[str, Any]) -> tuple[int, int, RetryPolicy]:
    """``retry_count`` (the maximum), ``retry_interval`` (s) and the policy they make."""
    count = body.get("retry_count", 0)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 1000:
        raise ConnectraError(INVALID_RETRY_COUNT)
    interval_s = body.get("retry_interval", RETRY_INTERVAL_S)
    if isinstance(interval_s, bool) or not isinstance(interval_s, int) or not 0 <= interval_s <= 31_536_000:
        raise ConnectraError(INVALID_RETRY_INTERVAL)
    return count, interval_s, fixed_interval(count, interval_s)


def config_of(job_type: str, data: Mapping[str, Any], *, batch_rows: int) -> dict[str, Any]:
    """Our job config for a ``job_data``; ConnectraError where the product has a text for what is wrong."""
    if job_type == "insert_csv_file":
        named = {name: data[name] for name in ("s3_key", "s3_bucket") if data.get(name) is not None}
        return {**named, "table": "contacts", "batch_rows": batch_rows, "companions": True, "ignore_unknown": True}
    if job_type != "export_csv_file":
        raise ConnectraError(INVALID_JOB_TYPE % job_type)
    table = table_of(data.get("service"))
    vql = data.get("vql")
    if not isinstance(vql, dict) or not vql.get("select_columns"):
        raise ConnectraError(MISSING_SELECT_COLUMNS)
    # The limit in an export is the product's page size; it exports every row that matches.
    query = {name: value for name, value in vql.items() if name not in {"limit", "page", "cursor", "search_after"}}
    config: dict[str, Any] = {"table": table, "vql": query}
    if data.get("s3_bucket") is not None:
        config["s3_bucket"] = data["s3_bucket"]
    return config


def states_of(words: Any) -> tuple[tuple[JobState, bool | None], ...]:
    """What a list of status words finds."""
    if words is None:
        return ()
    if not isinstance(words, list):
        raise ConnectraError(INVALID_STATUS % words)
    for word in words:
        if word not in STATES:
            raise ConnectraError(INVALID_STATUS % word)
    return tuple(found for word in words for found in STATES[word])


def word_of(job: Job) -> str:
    """The status word of a job."""
    return RETRY_WORD.get(job.state, WORD[job.state]) if job.is_at_retry else WORD[job.state]


def job_body(job: Job, runtime_errors: Sequence[str]) -> dict[str, Any]:
    """A job as the product shows it, with the retries that were made beside the maximum."""
    return {
        "id": job.number,
        "uuid": str(job.id),
        "job_type": job.type,
        "data": job.dialect.get("job_data", job.config),
        "status": word_of(job),
        "job_response": _response(job, runtime_errors),
        "retry_count": job.dialect.get("retry_count", job.retry.maximum_attempts - 1),
        "retry_interval": job.dialect.get("retry_interval", round(job.retry.initial_interval_s)),
        "retries": max(0, job.attempts - 1),
        "run_after": job.run_after.isoformat().replace("+00:00", "Z") if job.run_after else None,
        "created_at": job.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": job.updated_at.isoformat().replace("+00:00", "Z"),
    }


def _response(job: Job, runtime_errors: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    errors = list(runtime_errors)
    if job.state is JobState.CANCELLED:
        errors.append(f"the job was cancelled ({job.cancel_reason or 'user'})")
    if errors:
        body["runtime_errors"] = errors
    result = job.result or {}
    if job.state is JobState.COMPLETED:
        kind = "Import" if job.type == "insert_csv_file" else "Export"
        told = result.get("message")
        body["messages"] = f"{kind} completed successfully" + (f": {told}" if told else "")
    if result.get("s3_key"):
        body["s3_key"] = result["s3_key"]
    return body


def error_body(error: HaulierError) -> dict[str, Any]:
    """An error in the product's form."""
    if error.status == 401:
        return {"error": "unauthorized", "message": "invalid API key"}
    if error.status == 429:
        return {"error": "rate limit exceeded", "message": "too many requests, please try again later"}
    text = error.detail
    if error.problems:
        text += ": " + "; ".join(f"{fault.pointer} {fault.detail}".strip() for fault in error.problems)
    return {"error": text, "success": False}
