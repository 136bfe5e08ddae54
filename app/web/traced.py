"""Every request belongs to a trace: that of its ``traceparent``, or one of its own."""

from __future__ import annotations

from flask import Flask, request

from app.telemetry import trace


def register(app: Flask) -> None:
    """Let every request of ``app`` work for its trace; must come before what may refuse it."""
    app.before_request(lambda: trace.begin(request.headers.get("traceparent")))
    app.teardown_request(lambda _: trace.end())
