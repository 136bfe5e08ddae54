"""``http_request``: one HTTP call to an address of the user's choice; its answer is the job's result."""

from __future__ import annotations

import json
import re
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, field_validator

from app.domain.errors import InvalidRequestError, JobError, Problem, segment
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.security.outgoing.calls import Call, Reply
from app.security.outgoing.contents import Content, read_content, storable_headers
from app.security.outgoing.faults import unexpected_status
from app.security.outgoing.guard import Outgoing
from app.security.outgoing.targets import parse_target

if TYPE_CHECKING:
    from tasks.context import RunContext

_STATUS_CLASS: Final = re.compile(r"[2-5]xx")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE: Final = re.compile(r"(?:[\x21-\x7e\xa0-\xff](?:[\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?)?")
_MOST_HEADERS: Final = 64
_EXCERPT_CHARACTERS: Final = 1_000
# They frame the message or choose whom it is for; that is ours to say.
_OURS: Final = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


class HttpRequest(JobConfig):
    """What to send, and which answer is a good one."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] = "GET"
    url: str = Field(description="http or https, at most 8192 characters.")
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = Field(None, description="Text is sent as it is, any other value as JSON; null sends no body.")
    expected_status: int | list[int] | str = Field(
        "2xx", description="A status, a list of them, or a class such as 2xx."
    )
    timeout_s: float = Field(30.0, gt=0, le=300, description="For the whole exchange, name look-up to last byte.")
    max_response_bytes: int = Field(65_536, ge=0, le=1_048_576, description="More of the body is left unread.")
    max_redirects: int = Field(0, ge=0, le=10, description="Followed redirects; 0 takes a redirect for the answer.")

    @field_validator("expected_status", mode="before")
    @classmethod
    def _is_status(cls, value: Any) -> Any:
        listed = value if isinstance(value, list) else [value]
        if isinstance(value, str) and _STATUS_CLASS.fullmatch(value):
            return value
        if not listed or not all(type(one) is int and 200 <= one <= 599 for one in listed):
            raise ValueError("expected a status from 200 to 599, a list of them, or one of 2xx, 3xx, 4xx, 5xx")
        return value

    def expects(self, status: int) -> bool:
        """Whether ``status`` makes the job a success."""
        if isinstance(self.expected_status, str):
            return f"{status // 100}xx" == self.expected_status
        return status in (self.expected_status if isinstance(self.expected_status, list) else [self.expected_status])

    def call(self, idempotency_key: str) -> Call:
        """The call; headers that the config brings win over ours."""
        brought = {name.lower() for name in self.headers}
        ours = {"Idempotency-Key": idempotency_key}
        body: bytes | None = None
        if isinstance(self.body, str):
            body, ours["Content-Type"] = self.body.encode(), "text/plain; charset=utf-8"
        elif self.body is not None:
            body, ours["Content-Type"] = json.dumps(self.body, ensure_ascii=False).encode(), "application/json"
        return Call(
            method=self.method,
            url=self.url,
            headers={name: value for name, value in ours.items() if name.lower() not in brought} | self.headers,
            body=body,
            timeout_s=self.timeout_s,
            max_response_bytes=self.max_response_bytes,
            max_redirects=self.max_redirects,
        )


def check(_submission: Submission, config: HttpRequest) -> None:
    """Refuse a URL or header that cannot be sent; which addresses a name has is looked up when the job runs.

    Raises:
        InvalidRequestError: With a pointer; neither the URL nor a header's value is repeated, as both may be secret.
    """
    try:
        parse_target(config.url)
    except JobError as error:
        raise _refused("/config/url", error.detail, code=error.code) from None
    if len(config.headers) > _MOST_HEADERS:
        raise _refused("/config/headers", f"at most {_MOST_HEADERS} headers, got {len(config.headers)}")
    seen: set[str] = set()
    for name, value in config.headers.items():
        pointer = "/config/headers/" + segment(name)
        if not _NAME.fullmatch(name):
            raise _refused(pointer, "this is not the name of a header")
        if name.lower() in _OURS or name.lower() in seen:
            raise _refused(pointer, f"{name} is set by the server or stands here twice")
        if not _VALUE.fullmatch(value) or len(value) > 8192:
            raise _refused(pointer, f"the value of {name} holds what no header may hold, or is too long")
        seen.add(name.lower())


def _refused(pointer: str, detail: str, *, code: str = "job.config_invalid") -> InvalidRequestError:
    return InvalidRequestError(detail, code=code, problems=(Problem(pointer, detail),))


def run(job: RunContext, config: HttpRequest) -> Result:
    """Send the request; an answer that is not the expected one fails the attempt, or the job."""
    started = monotonic()
    with Outgoing.from_settings(job.settings).send(config.call(str(job.id)), job=job) as reply:
        content = read_content(reply)
    if not config.expects(reply.status):
        raise unexpected_status(reply.status, reply.headers, now=job.clock.now(), data=_excerpt(reply, content))
    elapsed_ms = round((monotonic() - started) * 1000)
    return Result(
        data={
            "status": reply.status,
            "headers": storable_headers(reply.headers),
            "body": content.value,
            "body_encoding": content.encoding,
            "body_truncated": content.is_truncated,
            "elapsed_ms": elapsed_ms,
        },
        message=f"{reply.target.origin} answered {reply.status} after {elapsed_ms} ms",
    )


def _excerpt(reply: Reply, content: Content) -> dict[str, Any]:
    return {"status": reply.status, "body": content.text[:_EXCERPT_CHARACTERS], "body_encoding": content.encoding}


JOB_TYPE = JobType(
    name="http_request",
    config=HttpRequest,
    run=run,
    queue="http",
    check=check,
    summary="Send an HTTP request to a public address and keep the answer.",
)
