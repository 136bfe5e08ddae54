"""The real clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The machine's time, aware UTC."""

    def now(self) -> datetime:
        """This instant."""
        return datetime.now(UTC)
