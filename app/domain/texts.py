"""Which text Postgres can hold."""

from __future__ import annotations

import re
from typing import Any, Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def is_storable(value: Any) -> bool:
    """Whether no text in a JSON value, however deep, holds U+0000 or half of a surrogate pair."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    if isinstance(value, dict):
        return all(is_storable(name) and is_storable(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(is_storable(inner) for inner in value)
    return True
