"""The provider ``http``: some rows are posted as JSON to an address, which answers with what it knows of each.

Sent is ``{"records": [{"email": …}, …]}``. The answer is a list, or ``{"records": […]}``, of as many members in the
same order: an object; ``null`` where nothing is known; ``{"error": "…"}`` where the row is to be refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field, field_validator

from app.domain.errors import JobError
from app.domain.job_types import JobConfig
from app.domain.row_plugins import Enricher, Found, Row, Unenriched
from app.security.outgoing.bodies import ResponseTooLargeError
from app.security.outgoing.calls import Call, Reply
from app.security.outgoing.faults import unexpected_status
from app.security.outgoing.guard import Outgoing
from app.security.outgoing.targets import parse_target

_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4000}[\x21-\x7e])?")
_OURS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)
_OK: Final = 200


class HttpConfig(JobConfig):
    """Which address is asked."""

    url: str = Field(description="http or https, a public address.")
    headers: dict[str, str] = Field(default_factory=dict, max_length=32)
    timeout_s: float = Field(30.0, gt=0, le=300, description="For one call.")
    max_response_bytes: int = Field(8 * 2**20, ge=1024, le=64 * 2**20)

    @field_validator("url")
    @classmethod
    def _is_target(cls, value: str) -> str:
        try:
            parse_target(value)
        except JobError as error:
            raise ValueError(error.detail) from None
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OURS or not _VALUE.fullmatch(content):
                raise ValueError(f"{name[:100]!r} is no header that can be set, or its value is none")
        return value


def look_up(job: Any, config: HttpConfig, rows: Sequence[Row]) -> Sequence[Found]:
    """Ask the address.

    Raises:
        TransientError: It could not be reached or may answer later; JobError: it does not answer as it should.
        PermanentError: It may not be called.
    """
    call = Call(
        method="POST",
        url=config.url,
        headers={**config.headers, "Content-Type": "application/json"},
        body=json.dumps({"records": list(rows)}, ensure_ascii=False).encode(),
        timeout_s=config.timeout_s,
        max_response_bytes=config.max_response_bytes,
    )
    with Outgoing.from_settings(job.settings).send(call, job=job) as reply:
        if reply.status != _OK:
            raise unexpected_status(reply.status, reply.headers, now=job.clock.now())
        answer = _json(reply)
    records = answer.get("records") if isinstance(answer, dict) else answer
    if not isinstance(records, list):
        raise JobError("expected a JSON list of records, got another answer", code="enrich.answer_invalid")
    return [_found(record) for record in records]


def _json(reply: Reply) -> Any:
    try:
        return json.loads(b"".join(reply.chunks()))
    except ResponseTooLargeError:
        raise JobError("the answer is larger than max_response_bytes", code="enrich.answer_invalid") from None
    except (ValueError, RecursionError):
        raise JobError("expected JSON, got another answer", code="enrich.answer_invalid") from None


def _found(record: Any) -> Found:
    if record is None:
        return None
    if not isinstance(record, dict):
        return Unenriched(f"expected an object, got {type(record).__name__}")
    return Unenriched(str(record["error"])) if record.get("error") else record


ENRICHER: Final = Enricher(HttpConfig, look_up, "Post rows as JSON to a public address, and take what it answers.")
