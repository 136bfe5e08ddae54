"""The OpenAPI document: an operationId for every route, and errors as they are answered."""

from __future__ import annotations

from typing import Any

from apispec import BasePlugin
from flask_smorest import Api
from marshmallow import Schema, fields


class FaultSchema(Schema):
    """One fault in a request."""

    pointer = fields.String(metadata={"description": "RFC 6901 into the body, or ?name for a query argument."})
    detail = fields.String()


class ProblemSchema(Schema):
    """An error (RFC 9457)."""

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String(metadata={"description": "What was expected and what came, for a person."})
    code = fields.String(metadata={"description": "Stable machine word.", "example": "job.not_retriable"})
    instance = fields.String()
    job_url = fields.String(metadata={"description": "The job that the request was about, when there is one."})
    trace_id = fields.String(
        metadata={"description": "Of the request's traceparent, or made; on each line that the log has of the request."}
    )
    hint = fields.String(metadata={"description": "What to do about it."})
    errors = fields.List(fields.Nested(FaultSchema))


class OperationIds(BasePlugin):
    """Names each operation after its view: ``jobs.cancel``, ``jobs.Jobs.post``."""

    def operation_helper(
        self,
        path: str | None = None,  # noqa: ARG002 - apispec's signature
        operations: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the names; called by apispec for every path."""
        endpoint = kwargs["rule"].endpoint
        for method, operation in (operations or {}).items():
            name = endpoint if len(operations or {}) == 1 else f"{endpoint}.{method}"
            operation.setdefault("operationId", name)
            # Docstrings mark code as reStructuredText does; a summary is plain text, a description CommonMark.
            for part, mark in (("summary", ""), ("description", "`")):
                if part in operation:
                    operation[part] = operation[part].replace("``", mark)


class HaulierApi(Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest's Api, with our errors in the document."""

    ERROR_SCHEMA = ProblemSchema

    def __init__(self, app: Any) -> None:
        super().__init__(app, spec_kwargs={"extra_plugins": [OperationIds()]})

    def _register_responses(self) -> None:
        self.DEFAULT_RESPONSE_CONTENT_TYPE = "application/problem+json"
        super()._register_responses()
        self.DEFAULT_RESPONSE_CONTENT_TYPE = "application/json"
