"""The trace that this thread works for: the client's own (W3C Trace Context), or one made here.

Nothing is read or made before somebody asks: most requests end without a line in the log.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class _Trace:
    """A trace; its id is settled when it is first asked for."""

    __slots__ = ("_id", "_traceparent")

    def __init__(self, traceparent: str | None) -> None:
        self._traceparent = traceparent
        self._id: str | None = None

    @property
    def id(self) -> str:
        if self._id is None:
            self._id = id_in(self._traceparent) or secrets.token_hex(16)
        return self._id


_current: ContextVar[_Trace | None] = ContextVar("haulier_trace", default=None)


def begin(traceparent: str | None) -> None:
    """Work for the trace that a ``traceparent`` header names; for one of its own when it names none."""
    _current.set(_Trace(traceparent))


def end() -> None:
    """Work for no trace any more."""
    _current.set(None)


def current_id() -> str | None:
    """The id of the trace, 32 hex digits; ``None`` when there is none."""
    trace = _current.get()
    return None if trace is None else trace.id


def id_in(traceparent: str | None) -> str | None:
    """The trace's id in a ``traceparent`` header; ``None`` for what is none. Source: W3C Trace Context, 3.2."""
    found = _TRACEPARENT.fullmatch((traceparent or "").strip())
    # Only later versions than 00 may go on after the flags.
    return None if found is None or (found[1] == "00" and found[3] is not None) else found[2]


def add_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Put the trace's id on a line of the log (a processor of structlog)."""
    trace_id = current_id()
    if trace_id is not None:
        event.setdefault("trace_id", trace_id)
    return event
