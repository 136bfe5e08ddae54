"""Changes of a job's config: a merge patch (RFC 7396), and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Amendment:
    """A config and the one that takes its place."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def changes(self) -> dict[str, Any]:
        """What the trail keeps: each key that differs, with both values; one that is not there has none."""
        keys = sorted(self.before.keys() | self.after.keys())
        sides = {"before": self.before, "after": self.after}
        return {
            key: {side: config[key] for side, config in sides.items() if key in config}
            for key in keys
            if (key in self.before, self.before.get(key)) != (key in self.after, self.after.get(key))
        }


def merged(config: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` under a merge patch: null takes a key away, objects are merged, all else is replaced."""
    result = dict(config)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            kept = result.get(key)
            result[key] = merged(kept if isinstance(kept, Mapping) else {}, value)
        else:
            result[key] = value
    return result
