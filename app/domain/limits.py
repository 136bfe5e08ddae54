"""Limits: how many jobs of a tenant, a type or a key may be at work, and how many may begin in a period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class LimitKind(StrEnum):
    """What a limit counts."""

    TENANT = "tenant"
    """Every job of a tenant."""
    TYPE = "type"
    """Every job of a type, whoever's it is."""
    KEY = "key"
    """The jobs of a tenant that share a ``concurrency_key``. A limit named like the part of the key before its first
    colon holds for each such key that has none of its own."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit.

    Args:
        tenant: Whose; ``""`` for a type's.
        name: The type or key; ``""`` for a tenant's.
        max_concurrency: Jobs admitted and not over, at most.
        rate: Jobs admitted in any ``period_s`` seconds, at most.
    """

    kind: LimitKind
    tenant: str
    name: str
    max_concurrency: int | None
    rate: int | None
    period_s: float | None
    updated_by: str
    updated_at: datetime


def class_of(concurrency_key: str) -> str:
    """The class that a key is of: what stands before its first colon."""
    return concurrency_key.partition(":")[0]
