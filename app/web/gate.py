"""What is settled before any view of the native API: that a key came, and that Postgres can hold every text sent."""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Flask, request

from app.domain.errors import MalformedRequestError
from app.domain.texts import is_storable
from app.services.links import SIGNATURE
from app.web.current import follow_link, principal

_OPEN: Final = frozenset({"health"})
"""Blueprints below ``/v1`` that answer without a key."""


def register(app: Flask) -> None:
    """Put the gate before every request of ``app``."""
    app.before_request(_refuse_unstorable_text)
    app.before_request(_ask_for_key)


def _ask_for_key() -> None:
    """Before the view reads its arguments: who has no key learns nothing about them."""
    if request.path.startswith("/v1/") and request.blueprint is not None and request.blueprint not in _OPEN:
        if request.method in {"GET", "HEAD"} and SIGNATURE in request.args:
            follow_link()
        else:
            principal()


def _refuse_unstorable_text() -> None:
    """No column of Postgres holds U+0000 or half a surrogate pair, so no view need think of them."""
    _check(request.path, "the address")
    if request.query_string:
        _check(request.args.to_dict(flat=False), "the address")
    if not request.is_json or b"\\u" not in request.get_data():
        return
    try:
        sent = json.loads(request.get_data())
    except ValueError:
        return  # The view's own parser says what is wrong with it.
    _check(sent, "the body")


def _check(value: Any, where: str) -> None:
    if not is_storable(value):
        raise MalformedRequestError(
            f"{where} holds U+0000 or half a surrogate pair, which is no text", code="request.unstorable_text"
        )
