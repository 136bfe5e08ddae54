"""Which text and JSON Postgres can hold."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, Final

from app.domain.errors import JobError

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_LONGEST_SAID: Final = 4_000
_MAYBE_UNSTORABLE: Final = ("\\u0000", "\\ud")
"""What JSON in ASCII holds where its texts cannot be stored; a whole surrogate pair and a backslash begin so too."""
_AS_JSON: Final = json.JSONEncoder(allow_nan=False).encode


def is_storable(value: Any) -> bool:
    """Whether no text in a JSON value, however deep, holds U+0000 or half of a surrogate pair."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    # Loops: a generator for each value of a small object costs more than to look at it.
    if isinstance(value, dict):
        for name, inner in value.items():
            if not is_storable(name) or not is_storable(inner):
                return False
    elif isinstance(value, list):
        for inner in value:
            if not is_storable(inner):
                return False
    return True


def storable(text: str) -> str:
    r"""``text`` as Postgres can hold it: ``\0`` for U+0000, ``?`` for half of a surrogate pair."""
    return text if is_storable(text) else text.replace("\0", "\\0").encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """``value`` for an error text: short, and safe for however deep a structure."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def said_by(error: BaseException) -> str:
    """The text of an error, also of one that cannot say it."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - whatever a job type's own error raises
        return f"its text cannot be had: {type(fault).__name__}"


def storable_json(value: Any, *, longest: int = _LONGEST_SAID) -> Any:
    """``value`` as JSON that Postgres can hold, for what is said of a failure, which must be kept whatever it holds.

    Whatever is no JSON is its ``str``, and of a text at most ``longest`` characters are kept.
    """
    if isinstance(value, dict):
        return {storable(str(name))[:longest]: storable_json(inner, longest=longest) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(inner, longest=longest) for inner in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    return storable(str(value))[:longest]


def check_json(value: Any, what: str, *, code: str, most_bytes: int | None = None) -> None:
    """Make sure that a value of a job type can be kept.

    Args:
        what: As the message calls it.
    Raises:
        JobError: It is no JSON, holds text that Postgres cannot hold, or is larger than ``most_bytes``.
    """
    try:
        text = _AS_JSON(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError(f"the {what} cannot be kept as JSON: {error}", code=code) from None
    # Where the text has no such mark, which is nearly always, nothing has to be walked through.
    if any(mark in text for mark in _MAYBE_UNSTORABLE) and not is_storable(json.loads(text)):
        raise JobError(f"the {what} holds U+0000 or half of a surrogate pair", code=code)
    if most_bytes is not None and len(text) > most_bytes:
        raise JobError(f"the {what} has at most {most_bytes:,} bytes as JSON, got {len(text):,}", code=code)


def like_pattern(part: str) -> str:
    """What ``LIKE`` takes to find ``part`` anywhere in a text."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
