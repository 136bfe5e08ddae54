"""Ids of what is stored."""

from __future__ import annotations

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """An id that sorts by the time it was made."""
    return UUID(bytes=uuid_utils.uuid7().bytes)
