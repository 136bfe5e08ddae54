"""The one place that answers errors, as RFC 9457 problem+json; a dialect may register its own form for its mount."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Flask, Response, json, request
from marshmallow import Schema, fields
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from app.domain.error_codes import REMEDIES, docs_url
from app.domain.errors import (
    HaulierError,
    InvalidRequestError,
    MalformedRequestError,
    NotFoundError,
    Problem,
    TooLargeError,
    UnavailableError,
    segment,
)
from app.telemetry import trace
from app.web.faults import MISSING, said, value_at

log = logging.getLogger(__name__)

ErrorForm = Callable[[HaulierError, int], Response]
_FORMS: Final = "haulier.error_forms"
_RETRY_AFTER_S: Final = 2
_MOST_SHOWN_BYTES: Final = 1 << 20


class MethodNotAllowedError(HaulierError):
    """The path exists, the method does not."""

    status = 405
    code = "request.method_not_allowed"


def register(app: Flask) -> None:
    """Answer every error of ``app`` here."""
    app.extensions.setdefault(_FORMS, {})
    app.register_error_handler(HaulierError, answer)
    app.register_error_handler(HTTPException, lambda error: answer(_from_http(error)))
    app.register_error_handler(DBAPIError, _from_store)
    app.register_error_handler(PoolTimeoutError, _from_store)
    app.register_error_handler(RecursionError, lambda _: answer(_too_deep()))
    app.register_error_handler(Exception, _unexpected)


def use_form(app: Flask, blueprint: str, form: ErrorForm) -> None:
    """Answer errors of requests to ``blueprint`` in a form of its own."""
    app.extensions.setdefault(_FORMS, {})[blueprint] = form


def answer(error: HaulierError) -> Response:
    """The response for an error, in the form of the surface that was asked."""
    from flask import current_app  # the app whose forms apply

    form = current_app.extensions[_FORMS].get(request.blueprint, problem)
    response: Response = form(error, error.status)
    retry_after_s = error.data.get("retry_after_s")
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def problem(error: HaulierError, status: int) -> Response:
    """The native form."""
    body: dict[str, Any] = {
        "type": docs_url(error.code),
        "title": error.code,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "instance": request.path,
    }
    hint = error.hint or REMEDIES.get(error.code)
    if hint:
        body["hint"] = hint
    job_url = _job_url(error)
    if job_url is not None:
        body["job_url"] = job_url
    trace_id = trace.current_id()
    if trace_id is not None:
        body["trace_id"] = trace_id
    if error.problems:
        body["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.problems]
    body |= {name: value for name, value in error.data.items() if name not in body}
    response = Response(json.dumps(body), status, mimetype="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="haulier"'
    return response


def _job_url(error: HaulierError) -> str | None:
    """Where the job is that a request was about; ``None`` when there is none, or none for who asks."""
    job_id = (request.view_args or {}).get("job_id")
    return None if job_id is None or error.status == 401 or error.code == "job.not_found" else f"/v1/jobs/{job_id}"


def _too_deep() -> HaulierError:
    return MalformedRequestError("the body is nested too deeply to be read", code="request.too_deep")


def _from_http(error: HTTPException) -> HaulierError:
    status = error.code or 500
    if status == 422:
        data = getattr(error, "data", {})
        messages = data.get("messages", {})
        return InvalidRequestError(
            "the request does not fit",
            hint=_of_content_type(messages),
            problems=tuple(_problems(messages, data.get("schema"))),
        )
    if status == 413:
        return TooLargeError("the body is larger than this server takes")
    if status == 404:
        return NotFoundError(f"there is nothing at {request.path}", code="request.no_such_path")
    if status == 405:
        return MethodNotAllowedError(f"{request.method} is not a method of {request.path}")
    if 400 <= status < 500:
        # What webargs made of a body that it could not read.
        broken = getattr(error, "exc", None)
        said = f"the body is not valid JSON: {broken}" if isinstance(broken, ValueError) else error.description
        return MalformedRequestError(said or error.name)
    return HaulierError(error.description or error.name)


def _of_content_type(messages: Any) -> str | None:
    """What to do when a body was not looked at, because it was not said to be JSON."""
    if "json" not in messages or request.is_json or not request.content_length:
        return None
    return f"Send the body with Content-Type: application/json, got {request.mimetype or 'none'}."


def _problems(messages: Any, schema: Any) -> Iterator[Problem]:
    """Faults with RFC 6901 pointers out of webargs' nested messages; the outermost name is where the value stood."""
    for place, inner in messages.items():
        if place in {"query", "headers", "path"} and isinstance(inner, dict):
            for argument, faults in inner.items():
                yield from (said(fault, _argument(fault.pointer)) for fault in problems(faults, f"?{argument}"))
        else:
            body = _body()
            yield from (said(_named(fault, schema), value_at(body, fault.pointer)) for fault in problems(inner, ""))


def _argument(pointer: str) -> Any:
    """What a query argument was given as; one that may come several times is counted (``?state/1``)."""
    name, _, place = pointer.removeprefix("?").partition("/")
    given = request.args.getlist(name)
    return value_at(given, f"/{place or 0}")


def _body() -> Any:
    """The body once more, of a size that is worth it."""
    return request.get_json(silent=True) if (request.content_length or 0) <= _MOST_SHOWN_BYTES else MISSING


def _named(fault: Problem, schema: Schema | None) -> Problem:
    """A fault that a member of the body is unknown, with those there are."""
    if schema is None or fault.detail != schema.error_messages["unknown"]:
        return fault
    inner = _schema_at(schema, fault.pointer.split("/")[1:-1])
    if inner is None:
        return fault
    known = ", ".join(field.data_key or name for name, field in inner.load_fields.items())
    return Problem(fault.pointer, f"there is no such field; expected one of {known}")


def _schema_at(schema: Schema, steps: list[str]) -> Schema | None:
    for step in steps:
        if step.isdigit():
            continue
        field = next((one for name, one in schema.load_fields.items() if (one.data_key or name) == step), None)
        inner = field.inner if isinstance(field, fields.List) else field
        if not isinstance(inner, fields.Nested):
            return None
        schema = inner.schema
    return schema


def problems(messages: Any, pointer: str) -> Iterator[Problem]:
    """Faults out of marshmallow's nested messages on the value at ``pointer``."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            step = "" if name == "_schema" else "/" + segment(name)
            yield from problems(inner, pointer + step)
    elif isinstance(messages, list):
        for message in messages:
            yield from problems(message, pointer)
    else:
        yield Problem(pointer, str(messages))


def _from_store(error: Exception) -> Response:
    log.warning("web.store_failed", extra={"path": request.path, "error": str(error)})
    if isinstance(error, DBAPIError) and not error.connection_invalidated and _is_fault(error):
        return _unexpected(error)
    return answer(
        UnavailableError(
            "the database does not answer",
            code="service.database_unavailable",
            hint="Nothing was stored, or it was stored whole: send the request again with the same Idempotency-Key.",
            data={"retry_after_s": _RETRY_AFTER_S},
        )
    )


def _is_fault(error: DBAPIError) -> bool:
    """Whether a statement was wrong, rather than the server away, starting, full or cancelled by a limit."""
    code = getattr(error.orig, "pgcode", None) or ""
    return code[:2] not in {"", "57", "53", "08", "40"}


def _unexpected(error: Exception) -> Response:
    log.error("web.unexpected", exc_info=error, extra={"path": request.path, "method": request.method})
    return answer(HaulierError("something went wrong on our side; it was logged"))
