"""Names of files with words in braces that are filled in when the file is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_WORD: Final = re.compile(r"{([^{}]*)}")


def filled(template: str, words: Mapping[str, str]) -> str:
    """``template`` with the values of its words.

    Raises:
        ValueError: It holds another word, or a brace alone.
    """
    left = _WORD.sub("", template)
    if set(_WORD.findall(template)) - words.keys() or "{" in left or "}" in left:
        raise ValueError(f"expected text with {', '.join(f'{{{word}}}' for word in words)}, got {template!r}")
    return _WORD.sub(lambda found: words[found[1]], template)
