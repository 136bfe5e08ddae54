"""The error tree. A message says what happened, what was expected and what came.

Every error has a stable ``code`` (``noun.reason``) and may carry a ``hint`` that says what to do about it. The web
layer answers each class with the status it declares; a job type raises ``TransientError`` for what another attempt may
cure and any other ``HaulierError`` for what it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


def segment(name: object) -> str:
    """A name as a part of a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a request: where (RFC 6901 pointer into the body, or ``?name`` for a query argument) and what."""

    pointer: str
    detail: str


class HaulierError(Exception):
    """Root of what Haulier raises on purpose.

    Args:
        detail: The sentence for a person.
        code: Stable machine word; the class's own when not given.
        hint: What the reader can do.
        problems: Faults with pointers, for requests.
        data: Facts for machines, JSON types only.
    """

    status: ClassVar[int] = 500
    permanent: ClassVar[bool] = False
    """Whether no attempt can ever pass, so that no policy makes another."""
    code: str = "internal.error"
    hint: str | None = None

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        problems: tuple[Problem, ...] = (),
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.hint = hint or type(self).hint
        self.problems = problems
        self.data = data or {}


class InvalidRequestError(HaulierError):
    """The request cannot be understood or its values do not fit; nothing was stored."""

    status = 422
    permanent = True
    code = "request.invalid"


class MalformedRequestError(HaulierError):
    """The request is not even well formed (JSON, header, cursor)."""

    status = 400
    code = "request.malformed"


class UnauthorizedError(HaulierError):
    """No key, a wrong one or a revoked one; the answer does not say which."""

    status = 401
    code = "auth.unauthorized"
    hint = "Send a valid key as 'X-API-Key: <key>' or 'Authorization: Bearer <key>'."


class ForbiddenError(HaulierError):
    """The key is good but may not do this."""

    status = 403
    permanent = True
    code = "auth.forbidden"


class NotFoundError(HaulierError):
    """There is no such thing for this tenant (another tenant's thing looks the same)."""

    status = 404
    code = "resource.not_found"


class GoneError(HaulierError):
    """The thing was there and its time is over."""

    status = 410
    code = "resource.gone"


class RangeError(HaulierError):
    """No such range of bytes."""

    status = 416
    code = "request.range_invalid"


class ConflictError(HaulierError):
    """The thing is not in a state that allows this."""

    status = 409
    code = "state.conflict"


class PreconditionFailedError(HaulierError):
    """The thing has changed since the version that the request names."""

    status = 412
    code = "state.changed"


class TooLargeError(HaulierError):
    """The body is over the limit."""

    status = 413
    code = "request.too_large"


class TooManyRequestsError(HaulierError):
    """Over the rate limit; ``data['retry_after_s']`` says when to come back."""

    status = 429
    code = "request.rate_limited"


class UnavailableError(HaulierError):
    """A store is away or every waiting place is taken; try again shortly."""

    status = 503
    code = "service.unavailable"


class JobError(HaulierError):
    """A job cannot go on; another attempt would end the same way, unless something is changed in between."""

    code = "job.failed"


class PermanentError(JobError):
    """A job can never pass as it is: not even a policy that retries every failure makes another attempt."""

    permanent = True


class TransientError(JobError):
    """A job failed on something that may pass; the job's retry policy decides.

    ``retry_after_s`` is the receiver's own wish (``Retry-After``) and wins over the policy when it is longer.
    """

    code = "job.transient"

    def __init__(self, detail: str, *, retry_after_s: float | None = None, **kwargs: Any) -> None:
        super().__init__(detail, **kwargs)
        if not isinstance(retry_after_s, int | float | None):
            raise TypeError(f"retry_after_s is a number of seconds, got {retry_after_s!r}")
        self.retry_after_s = retry_after_s


class JobPaused(Exception):  # noqa: N818 - it is a signal, not an error
    """Raised inside a job type to stop at a checkpoint because the job is to be paused; ``data`` joins the event's."""

    code = "job.paused"

    def __init__(self, reason: str, *, code: str | None = None, data: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code or type(self).code
        self.data = data or {}


class JobCancelled(Exception):  # noqa: N818 - it is a signal, not an error
    """Raised inside a job type when the job was cancelled or its time is over; ``terminated``: it is killed."""

    def __init__(self, reason: str, *, terminated: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.terminated = terminated


class FenceLost(Exception):  # noqa: N818 - it is a signal, not an error
    """The job is no longer held under our fence: another worker has it or it ended. Stop without a word."""
