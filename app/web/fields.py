"""Fields of requests that every surface reads alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields


class Instant(fields.AwareDateTime):
    """An ISO 8601 time with a zone, taken to UTC: Postgres refuses zones that Python knows (``-20:54``)."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        instant: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return instant.astimezone(UTC)
        except OverflowError:
            raise ValidationError(f"expected a time within the years 1 to 9999 of UTC, got {value!r}") from None
