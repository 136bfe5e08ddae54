"""Fields of requests that every surface reads alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from marshmallow import ValidationError, fields

from app.domain.durations import duration_s
from app.domain.errors import InvalidRequestError

_LONGEST_S: Final = 31_536_000.0
_DURATION: Final = 'Milliseconds, or a text like "5s", "1.5h", "7d".'


class Instant(fields.AwareDateTime):
    """An ISO 8601 time with a zone, taken to UTC: Postgres refuses zones that Python knows (``-20:54``)."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        instant: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return instant.astimezone(UTC)
        except OverflowError:
            raise ValidationError(f"expected a time within the years 1 to 9999 of UTC, got {value!r}") from None


class Duration(fields.Field[float]):
    """Seconds, at most a year, from milliseconds or a text like ``7d``, ``1.5h`` and ``300`` (milliseconds too)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"type": ["integer", "number", "string"], "description": _DURATION}, **kwargs)

    def _deserialize(self, value: Any, *_args: Any, **_options: Any) -> float:
        try:
            seconds = duration_s(value, "")
        except InvalidRequestError as error:
            raise ValidationError(error.problems[0].detail) from None
        if seconds > _LONGEST_S:
            raise ValidationError(f"expected at most a year, got {value!r}")
        return round(seconds, 3)
