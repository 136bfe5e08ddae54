"""The rate limit: requests a key and minute, counted in Redis by all web processes together.

Off unless ``rate_limit_per_minute`` says otherwise. While Redis is away each process counts for itself: no request is
refused, and none is held up for longer than a bell would be, because a counter cannot be reached.
"""

from __future__ import annotations

import time
from typing import Any, Final

from flask import Flask, Response, request
from flask_limiter import Limiter
from flask_limiter.errors import RateLimitExceeded

from app.domain.errors import TooManyRequestsError, UnauthorizedError
from app.web import errors
from app.web.current import principal
from config.settings import Settings

_OPEN: Final = frozenset({"health", "docs", "api-docs"})
_WINDOW_S: Final = 60
_PATIENCE: Final[dict[str, Any]] = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}
"""With Redis, in seconds."""


def register(app: Flask, settings: Settings) -> None:
    """Limit the requests of each key, or of each address where no valid key came; must come before what it guards."""
    limit = settings.rate_limit_per_minute
    if limit == 0:
        return
    limiter = Limiter(
        _who,
        app=app,
        application_limits=[f"{limit} per minute"],
        application_limits_exempt_when=lambda: request.blueprint in _OPEN,
        storage_uri=settings.redis_url.get_secret_value(),
        storage_options=_PATIENCE,
        key_prefix="haulier:limit",
        in_memory_fallback_enabled=True,
        swallow_errors=True,
        headers_enabled=False,
    )
    app.register_error_handler(RateLimitExceeded, lambda _: _refuse(limiter, limit))


def _who() -> str:
    try:
        return f"key:{principal().key_id}"
    except UnauthorizedError:
        # Not by the key that was sent: whoever guesses keys would have a fresh count for each guess.
        return f"address:{request.remote_addr}"


def _refuse(limiter: Limiter, limit: int) -> Response:
    reached = limiter.current_limit
    left_s = reached.reset_at - time.time() if reached else _WINDOW_S
    wait_s = max(1, min(_WINDOW_S, round(left_s)))
    return errors.answer(
        TooManyRequestsError(
            f"more than {limit} requests came within a minute",
            hint="Wait as long as Retry-After says; wait for jobs with ?wait= and read many with jobs:batchGet.",
            data={"retry_after_s": wait_s},
        )
    )
