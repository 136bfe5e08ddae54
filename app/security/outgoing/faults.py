"""What went wrong with a call, in our own words: those of the libraries hold paths and queries, which may be secret."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
import urllib3

from app.domain.errors import JobError, TransientError
from app.security.outgoing.targets import Target

_LONGEST_RETRY_AFTER_S: Final = 86_400.0
_MAY_PASS: Final = frozenset({408, 425, 429})


def explained(error: Exception, target: Target) -> JobError:
    """The error to raise for a library's ``error``; a ``TransientError`` when another attempt may go better."""
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return TransientError(f"the name {target.host} could not be resolved", code="http.unresolved")
    if any(isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError) for cause in causes):
        return JobError(
            f"the certificate of {target.origin} is not valid for it",
            code="http.certificate_refused",
            hint="The server needs a certificate for this name from a public authority.",
        )
    if any(isinstance(cause, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError) for cause in causes):
        return TransientError(f"{target.origin} did not answer in time", code="http.timeout")
    if isinstance(error, ValueError):
        return JobError(f"the request to {target.origin} cannot be sent as it is", code="http.request_invalid")
    kind = type(causes[-1]).__name__
    return TransientError(f"the connection to {target.origin} failed ({kind})", code="http.connection_failed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        cause = waiting.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]


def unexpected_status(
    status: int, headers: Mapping[str, str], *, now: datetime, data: dict[str, Any] | None = None
) -> JobError:
    """The error for an answer whose status is not the one that was hoped for.

    Server errors, 408, 425 and 429 may pass; the receiver's ``Retry-After`` is waited for, a day at most.
    """
    detail, code = f"the answer has the status {status}", "http.status_unexpected"
    if status >= 500 or status in _MAY_PASS:
        return TransientError(
            detail, code=code, data=data, retry_after_s=retry_after_s(headers.get("Retry-After"), now=now)
        )
    return JobError(detail, code=code, data=data)


def retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """Seconds from ``now`` that a ``Retry-After`` asks for, 0 to a day; ``None`` when it says nothing.

    Args:
        value: Seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - now).total_seconds()), _LONGEST_RETRY_AFTER_S)
