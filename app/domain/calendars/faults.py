"""Collects what is wrong with a request's rules, so that one answer names every fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from app.domain.errors import InvalidRequestError, Problem, segment
from app.domain.texts import is_storable

LONGEST_COMMENT: Final = 500
_MOST: Final = 50
_T = TypeVar("_T")


class Faults:
    """What is wrong so far; ``raise_if_any`` ends a reading that found something."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, pointer: str, detail: str) -> None:
        """One more fault at ``pointer``."""
        self._found.append(Problem(pointer, detail))

    def reading(self, read: Callable[[], _T]) -> _T | None:
        """What ``read`` returns; ``None`` when it raised InvalidRequestError, whose problems are kept."""
        try:
            return read()
        except InvalidRequestError as error:
            self._found.extend(error.problems)
            return None

    def settled(self, value: _T | None) -> _T:
        """``value``, which only a fault leaves ``None``; raises as ``raise_if_any`` does."""
        self.raise_if_any()
        return cast(_T, value)

    def raise_if_any(self) -> None:
        """Raise InvalidRequestError ``schedule.rules_invalid`` with the faults found, 50 at most."""
        if self._found:
            first = self._found[0]
            raise InvalidRequestError(
                f"the schedule's rules cannot be used: at {first.pointer}: {first.detail}",
                code="schedule.rules_invalid",
                problems=tuple(self._found[:_MOST]),
            )


def members(value: object, at: str, known: tuple[str, ...], faults: Faults, *, main: str = "") -> Mapping[str, Any]:
    """The members of a JSON object; members that are not ``known`` are faults.

    With ``main``, anything but an object stands for an object with that one member.
    """
    if not isinstance(value, dict):
        if main:
            return {main: value}
        faults.add(at, f"expected an object, got {shown(value)}")
        return {}
    for name in value:
        if name not in known:
            step = segment(name)
            faults.add(f"{at}/{step}", f"expected only {', '.join(known)}")
    return value


def comment(value: object, at: str, faults: Faults) -> str:
    """A rule's comment; ``""`` when there is none."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_COMMENT or not is_storable(value):
        faults.add(at, f"expected a text of at most {LONGEST_COMMENT} characters without U+0000, got {shown(value)}")
        return ""
    return value


def shown(value: object) -> str:
    """``value`` for an error text: short, however large or deep it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
