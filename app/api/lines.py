"""Bodies of many lines, a JSON value each, read as they come: no more than one line is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from typing import Any, Final, cast

from flask import request

from app.domain.errors import InvalidRequestError, MalformedRequestError, Problem
from app.domain.texts import is_storable
from app.web.current import services

MIMETYPE: Final = "application/x-ndjson"
MAX_LINE_BYTES: Final = 2**20


def read_lines() -> Iterator[Any]:
    """The values of the body's lines.

    Raises:
        InvalidRequestError: A line is no JSON or too long; the pointer is its place in the body, from 0.
        MalformedRequestError: The body is shorter than its sender said.
    """
    request.max_content_length = services().settings.max_lines_bytes
    body = BufferedReader(cast(RawIOBase, request.stream))
    place = come = 0
    while line := body.readline(MAX_LINE_BYTES + 1):
        yield _value(line, place)
        place += 1
        come += len(line)
    # Cut between two lines it would look whole, and the server says nothing of a sender that has gone.
    if come < (request.content_length or 0):
        raise MalformedRequestError(f"the body broke off after {come:,} of {request.content_length:,} bytes")


def _value(line: bytes, place: int) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise misfit(place, f"expected at most {MAX_LINE_BYTES:,} bytes in a line")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise misfit(place, f"expected a JSON value, got {line[:100]!r}: {error}") from None
    if not is_storable(value):
        raise misfit(place, "U+0000 and lone surrogates are not allowed")
    return value


def misfit(place: int, detail: str) -> InvalidRequestError:
    """What is wrong with a line."""
    return InvalidRequestError(f"line {place + 1} of the body does not fit", problems=(Problem(f"/{place}", detail),))
