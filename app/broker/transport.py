"""Celery's Redis transport, for which a list element that is no message costs nothing but a line in the log.

Kombu takes an element apart before anything guards it, so one that is not JSON would end the worker that popped it.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

log = logging.getLogger(__name__)


class Channel(redis.Channel):
    """Drops what cannot be read."""

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]  # kombu has no types
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("bell.unreadable", extra={"error": f"{type(error).__name__}: {error}"})
            raise Empty from None


class Transport(redis.Transport):
    """Kombu's, with our channel."""

    Channel = Channel


def install() -> None:
    """Have Celery use it for ``redis://`` and ``rediss://``: Flower knows a broker by these names only."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
