r"""Patterns that users bring, matched in linear time whatever they are: by RE2, a column at a time.

One call looks at a whole column. RE2 reads UTF-8 and matches the byte 0xFF by nothing but ``\C``, which no pattern may
hold; so between two such bytes, each in line ends of its own, the pattern has matched the very value that stands there,
provided that no value holds a line end. A property of the tests holds the call to what each value gives by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import re2

_BORDER: Final = b"\n\xff\n"
_MOST_MEMORY: Final = 8 << 20
_MOST_PROGRAM: Final = 5_000


class PatternError(ValueError):
    """A pattern that RE2 does not take, or one that is too large."""


class Pattern:
    """A pattern that has to match the whole of a value.

    Raises:
        PatternError: It cannot be used; the text says why.
    """

    def __init__(self, text: str) -> None:
        self._one = _compiled(text)
        bare = text.removeprefix("^")
        if bare.endswith("$") and not bare.endswith(r"\$"):
            bare = bare[:-1]
        try:
            self._run = _compiled(rf"(?:(?:(?:{bare})|)\n\C\n)*", own=True)
        except PatternError:  # it made sense with its anchors only
            self._run = _compiled(rf"(?:(?:(?:{text})|)\n\C\n)*", own=True)

    def misfits(self, values: Sequence[bytes]) -> Iterator[int]:
        """The places of values, in UTF-8, that it does not match; empty ones are not looked at."""
        if not values:
            return
        joined = _BORDER.join(values) + _BORDER
        if joined.count(b"\n") != 2 * len(values):
            yield from (place for place, value in enumerate(values) if value and not self._one.fullmatch(value))
            return
        place = at = 0
        while (end := self._run.match(joined, at).end()) < len(joined):
            place += joined.count(b"\xff", at, end)
            at = joined.index(_BORDER, end) + len(_BORDER)
            if not self._one.fullmatch(values[place]):  # it may hold anchors that a value alone would meet
                yield place
            place += 1


@lru_cache(maxsize=256)
def _compiled(text: str, *, own: bool = False) -> Any:
    if not own and r"\C" in text.replace(r"\\", ""):
        raise PatternError(r"\C is not taken")
    options = re2.Options()
    options.max_mem = _MOST_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        found = re2.compile(text, options)
    except re2.error as error:
        said = error.args[0]
        raise PatternError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None
    if found.programsize > _MOST_PROGRAM:
        raise PatternError("it is too large")
    return found
