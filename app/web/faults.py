"""What a fault of a request says: marshmallow's words tell what was expected, these also what came."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any, Final

from app.domain.errors import Problem
from app.domain.texts import shown

MISSING: Final = object()
"""There is no value to show."""
_EXPECTED: Final[Mapping[str, str]] = {
    "Invalid input type.": "expected an object",
    "Not a valid mapping type.": "expected an object",
    "Not a valid list.": "expected an array",
    "Not a valid string.": "expected a string",
    "Not a valid integer.": "expected a whole number",
    "Not a valid number.": "expected a number",
    "Not a valid boolean.": "expected true or false",
    "Not a valid UUID.": "expected a UUID",
    "Not a valid datetime.": "expected a date and time such as 2024-05-31T12:30:00Z",
    "Special numeric values (nan or infinity) are not permitted.": "expected a finite number",
}


def said(fault: Problem, given: Any) -> Problem:
    """A fault of marshmallow's with what was given; any other as it is. Of what is too long only the length is told."""
    if given is MISSING:
        return fault
    detail = fault.detail
    if detail in _EXPECTED:
        return Problem(fault.pointer, f"{_EXPECTED[detail]}, got {shown(given)}")
    if detail.startswith("Must be "):
        return Problem(fault.pointer, f"{detail.removesuffix('.')}, got {shown(given)}")
    if detail.startswith(("Length must be ", "Shorter than ", "Longer than ")) and isinstance(given, Sized):
        return Problem(fault.pointer, f"{detail.removesuffix('.')}, got {len(given)}")
    return fault


def value_at(body: Any, pointer: str) -> Any:
    """What stands at an RFC 6901 pointer; ``MISSING`` when nothing does."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(body, dict) and name in body:
            body = body[name]
        elif isinstance(body, list) and name.isdecimal() and int(name) < len(body):
            body = body[int(name)]
        else:
            return MISSING
    return body
