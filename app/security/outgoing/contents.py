"""An answer as a job can keep it: bounded, in JSON types, and only text that Postgres can hold."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.domain.texts import is_storable
from app.security.outgoing.bodies import ResponseTooLargeError
from app.security.outgoing.calls import Reply

Encoding = Literal["json", "text", "base64"]

_KEPT_HEADERS: Final = (
    "Cache-Control", "Content-Disposition", "Content-Language", "Content-Length", "Content-Type", "Date", "ETag",
    "Last-Modified", "Link", "Location", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After",
    "Server", "Vary", "X-Request-Id",
)  # fmt: skip
_LONGEST_VALUE: Final = 1_000
_DEEPEST_JSON: Final = 64
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
# Python's other codecs are slow, stateful, or no character sets at all.
_CHARSETS: Final = frozenset(
    {
        "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "iso-8859-2", "iso-8859-15", "windows-1250",
        "windows-1251", "windows-1252", "koi8-r", "utf-16", "utf-16le", "utf-16be", "shift_jis", "euc-jp", "gb18030",
        "gbk", "big5", "euc-kr",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """A body.

    Args:
        text: The characters, or base64.
        value: ``text``, or what it says as JSON.
        encoding: What ``value`` is; ``base64`` when the bytes are no text that can be kept.
        is_truncated: There was more than the call takes.
    """

    text: str
    value: Any
    encoding: Encoding
    is_truncated: bool


def read_content(reply: Reply) -> Content:
    """The body of an answer, up to what its call takes."""
    data, is_truncated = bytearray(), False
    try:
        for chunk in reply.chunks():
            data += chunk
    except ResponseTooLargeError:
        is_truncated = True
    return content_of(bytes(data), reply.headers.get("Content-Type", ""), is_truncated=is_truncated)


def content_of(data: bytes, content_type: str, *, is_truncated: bool = False) -> Content:
    """``data`` as JSON when its type says so and it can be kept as such, else as text, else in base64."""
    named = _CHARSET.search(content_type)
    text = _text(data, named.group(1).lower() if named else "utf-8", is_truncated=is_truncated)
    if text is None or not is_storable(text):
        encoded = b64encode(data).decode()
        return Content(encoded, encoded, "base64", is_truncated)
    kind = content_type.partition(";")[0].strip().lower()
    if not is_truncated and (kind == "application/json" or kind.endswith("+json")):
        try:
            return Content(text, _json(text), "json", is_truncated)
        except (ValueError, RecursionError):
            pass  # it is kept as the text it came as
    return Content(text, text, "text", is_truncated)


def _text(data: bytes, charset: str, *, is_truncated: bool) -> str | None:
    charset = charset if charset in _CHARSETS else "utf-8"
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        if is_truncated and error.end == len(data) and len(data) - error.start < 4:  # the cut went through a character
            return data[: error.start].decode(charset)
        return None


def _json(text: str) -> Any:
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    if not _fits(value, _DEEPEST_JSON):
        raise ValueError
    return value


def _fits(value: Any, deepest: int) -> bool:
    if isinstance(value, dict):
        return all(map(is_storable, value)) and _fits([*value.values()], deepest)
    if isinstance(value, list):
        return deepest > 0 and all(_fits(one, deepest - 1) for one in value)
    return is_storable(value)


def storable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are kept, by lower-case name: none that sets a cookie or carries a credential."""
    kept = {name.lower(): headers[name][:_LONGEST_VALUE] for name in _KEPT_HEADERS if name in headers}
    return {name: value.replace("\0", "\\0") for name, value in kept.items()}
