"""Families: a job whose work is its children, and what their ends make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from app.domain.jobs import Outcome, Priority, priority_of, word_of
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy


class Kind(StrEnum):
    """What the children are."""

    BATCH = "batch"
    """Payloads, in any number and without names."""
    PIPELINE = "pipeline"
    """Named stages that may wait for each other."""


class OnFailure(StrEnum):
    """What a child that fails for good does to the others."""

    CONTINUE = "continue"
    STOP = "stop-on-error"
    """What has not begun is cancelled, reason ``skipped``."""
    RETRY = "retry"
    """It is run again as a whole, so many times; then as ``STOP``. Only for stages."""


@dataclass(frozen=True, slots=True)
class Member:
    """A child to be made: a payload or a stage, as its type's checks left it.

    Args:
        queue: The type's own; kept, so that making the child needs no job types.
        depends_on: Names of its siblings that it waits for.
        priority: ``None`` for its parent's.
        max_concurrency: Jobs of its ``concurrency_key`` that may be at work; not of its family.
    """

    type: str
    config: dict[str, Any]
    queue: str
    retry: RetryPolicy
    attempt_timeout_s: float | None = None
    name: str | None = None
    depends_on: tuple[str, ...] = ()
    priority: Priority | None = None
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()

    def as_json(self) -> dict[str, Any]:
        """As it is kept until it is made."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "retry": self.retry.as_json(),
            "priority": word_of(self.priority),
            "resources": self.resources.as_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Member:
        """The inverse of ``as_json``."""
        said: dict[str, Any] = {
            **value,
            "retry": RetryPolicy.from_json(value["retry"]),
            "depends_on": tuple(value["depends_on"]),
            "priority": priority_of(value["priority"]),
            "resources": Resources.from_json(value["resources"]),
        }
        return cls(**said)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a family is made of.

    Args:
        max_concurrency: Children at work at once at most.
        max_payloads: How far it may be extended.
        reruns: How often a stage that failed is run again as a whole.
        delivery: The job that takes the results to a sink, but for whose they are.
    """

    kind: Kind
    max_concurrency: int
    max_payloads: int
    on_failure: OnFailure
    members: tuple[Member, ...]
    reruns: int = 0
    delivery: Member | None = None

    def as_json(self) -> dict[str, Any]:
        """As a schedule keeps it."""
        return {
            **asdict(replace(self, members=(), delivery=None)),
            "members": [member.as_json() for member in self.members],
            "delivery": self.delivery.as_json() if self.delivery else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The inverse of ``as_json``."""
        members = tuple(Member.from_json(one) for one in value["members"])
        return cls(
            **{
                **value,
                "kind": Kind(value["kind"]),
                "on_failure": OnFailure(value["on_failure"]),
                "members": members,
                "delivery": Member.from_json(value["delivery"]) if value["delivery"] else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """How many children stand where; they add up to ``total``."""

    total: int
    running: int
    completed: int
    failed: int
    cancelled: int

    @property
    def pending(self) -> int:
        """Those that have not begun, or wait for another attempt."""
        return self.total - self.running - self.completed - self.failed - self.cancelled


@dataclass(frozen=True, slots=True)
class Ending:
    """How a family ends: ``completed`` with an outcome, or failed when ``outcome`` is ``None``."""

    outcome: Outcome | None


def ending(*, total: int, completed: int, failed: int, cancelled: int, on_failure: OnFailure) -> Ending | None:
    """What the ends of all children make of their parent; ``None`` while some are not over.

    One failure fails a family, unless it continues after failures; then only the failure of every child does.
    """
    if completed + failed + cancelled < total:
        return None
    if total == 0:
        return Ending(Outcome.EMPTY)
    if completed == total:
        return Ending(Outcome.SUCCESS)
    if completed == 0 or (failed and on_failure is not OnFailure.CONTINUE):
        return Ending(None)
    return Ending(Outcome.PARTIAL)
