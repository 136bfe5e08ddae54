"""Opaque cursors of queries: the order they belong to, and the last row's values of its terms."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, NoReturn

from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.model import Query, total_order
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, MalformedRequestError

_MAX_CURSOR_CHARACTERS: Final = 16_384


def _signature(query: Query, catalogue: Catalogue) -> list[list[Any]]:
    """The order that a cursor belongs to."""
    return [[term.field.name, term.descending] for term in total_order(query.order, catalogue.key_fields())]


def after_page(query: Query, catalogue: Catalogue, after: list[Any] | None) -> str | None:
    """The cursor of the next page; ``None`` when there is none (``after`` is ``None``)."""
    if after is None:
        return None
    body = json.dumps({"order": _signature(query, catalogue), "after": after}, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def behind(cursor: str, vql: dict[str, Any], query: Query, catalogue: Catalogue) -> Query:
    """``query`` from where ``cursor`` says on; ``vql`` is what it was parsed from.

    Raises:
        MalformedRequestError: ``cursor.invalid``: not a cursor of this query.
        InvalidRequestError: The query says itself where it begins.
    """
    if query.page is not None or query.after is not None:
        raise InvalidRequestError("give one of cursor, search_after and page, got two", code="vql.invalid")
    order, after = _decode(cursor)
    if order != _signature(query, catalogue):
        _refuse("it belongs to a query with another order")
    try:
        return parse({**vql, "cursor": None, "search_after": after}, catalogue)
    except InvalidRequestError:
        _refuse("its values do not fit")


def _decode(cursor: str) -> tuple[list[Any], list[Any]]:
    if len(cursor) > _MAX_CURSOR_CHARACTERS:
        _refuse("it is too long")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        body = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        _refuse("it cannot be read")
    if not isinstance(body, dict) or set(body) != {"order", "after"} or not isinstance(body["after"], list):
        _refuse("it cannot be read")
    if not body["after"]:
        _refuse("its values do not fit")
    return body["order"], body["after"]


def _refuse(why: str) -> NoReturn:
    raise MalformedRequestError(
        f"the cursor cannot be used: {why}",
        code="cursor.invalid",
        hint="Pass next_cursor of the page before, with the same query; or start without a cursor.",
    )
