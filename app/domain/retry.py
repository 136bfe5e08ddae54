"""The retry policy: how many attempts a job has, which failures earn another, and how long it waits between them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.domain.durations import LONGEST_S
from app.domain.errors import HaulierError, TransientError

CRASHED: Final = "job.crashed"
"""The code of an error that is none of ours."""
_IN_MS: Final = {"initial_interval_s": "initial_interval", "maximum_interval_s": "maximum_interval"}
_IN_S: Final = {word: name for name, word in _IN_MS.items()}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again.

    Args:
        maximum_attempts: Attempts in all, the first included. At least 1.
        initial_interval_s: Wait after the first failure.
        backoff_coefficient: Factor from one wait to the next; 1 waits the same time always.
        maximum_interval_s: The longest wait.
        jitter: Draw the wait evenly from zero to the computed one.
        transient_only: Retry only what may pass (``TransientError``); otherwise every failure but those that are
            permanent by their nature.
        non_retryable: Codes of errors (``s3.not_found``) and names of exception classes (``ValueError``; its
            subclasses too) that end the job at once.
    """

    maximum_attempts: int = 3
    initial_interval_s: float = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval_s: float = 60.0
    jitter: bool = True
    transient_only: bool = True
    non_retryable: tuple[str, ...] = ()

    def takes(self, error: BaseException) -> bool:
        """Whether ``error`` is one to try again after, as long as attempts are left."""
        if isinstance(error, HaulierError) and error.permanent:
            return False
        names = {code_of(error), *(kind.__name__ for kind in type(error).__mro__)}
        if not names.isdisjoint(self.non_retryable):
            return False
        return isinstance(error, TransientError) or not self.transient_only

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after ``failures`` failed attempts (1 or more), before jitter.

        ``min(initial_interval * coefficient ** i, maximum_interval)`` with i from 0.
        """
        if self.initial_interval_s == 0:
            return 0.0
        try:
            calculated_s = self.initial_interval_s * self.backoff_coefficient ** (failures - 1)
        except OverflowError:
            calculated_s = math.inf
        return min(calculated_s, self.maximum_interval_s)

    def next_wait_s(self, failures: int, *, retry_after_s: float | None = None) -> float | None:
        """Seconds until the next attempt, or ``None`` when there is none left.

        Args:
            failures: Attempts that failed so far, this one included.
            retry_after_s: What the other side asked for; never waited less than that, but for a hundred years.
        """
        if failures >= self.maximum_attempts:
            return None
        wait_s = self.wait_s(failures)
        if self.jitter:
            wait_s *= random.random()  # noqa: S311 - spreads load, guards nothing
        return min(max(wait_s, retry_after_s or 0.0), LONGEST_S)

    def as_json(self) -> dict[str, Any]:
        """As it is stored on the job and shown by the API: intervals are milliseconds."""
        return {
            "maximum_attempts": self.maximum_attempts,
            "initial_interval": round(self.initial_interval_s * 1000),
            "backoff_coefficient": self.backoff_coefficient,
            "maximum_interval": round(self.maximum_interval_s * 1000),
            "jitter": self.jitter,
            "transient_only": self.transient_only,
            "non_retryable": self.non_retryable,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetryPolicy:
        """The inverse of ``as_json``."""
        return cls(**_from_words(value))


@dataclass(frozen=True, slots=True)
class RetryChanges:
    """What a request says of a retry policy; what it leaves out is as in the policy it is applied to.

    Args:
        given: By the names of ``RetryPolicy``.
    """

    given: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(frozenset(self.given))

    def applied_to(self, policy: RetryPolicy) -> RetryPolicy:
        """``policy`` with these changes; a longest wait that is not given never cuts the first one that is."""
        first_s = self.given.get("initial_interval_s", 0.0)
        return replace(policy, **{"maximum_interval_s": max(policy.maximum_interval_s, first_s), **self.given})

    def over(self, others: RetryChanges) -> RetryChanges:
        """Both; where they disagree, these."""
        return RetryChanges({**others.given, **self.given})

    def as_json(self) -> dict[str, Any]:
        """In the API's words."""
        return {
            _IN_MS.get(name, name): round(value * 1000) if name in _IN_MS else value
            for name, value in self.given.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetryChanges:
        """The inverse of ``as_json``."""
        return cls(_from_words(value))


def policy_of(wanted: RetryPolicy | RetryChanges | None, default: RetryPolicy) -> RetryPolicy:
    """The whole policy that a request comes to where ``default`` holds for what it does not say."""
    return wanted.applied_to(default) if isinstance(wanted, RetryChanges) else wanted or default


def code_of(error: BaseException) -> str:
    """The stable word for an error, whoever raised it."""
    return error.code if isinstance(error, HaulierError) else CRASHED


def fixed_interval(retries: int, interval_s: float) -> RetryPolicy:
    """``retries`` more attempts after the first whatever failed, ``interval_s`` apart (document 004)."""
    return RetryPolicy(retries + 1, interval_s, 1.0, interval_s, jitter=False, transient_only=False)


def retry_attempts(retries: int, delay_s: float = 1.0) -> RetryPolicy:
    """``retryAttempts`` more attempts after the first, ``delay_s`` and then ever longer apart (document 002)."""
    return RetryPolicy(retries + 1, delay_s, 2.0, max(60.0, delay_s), jitter=False, transient_only=False)


def without_delay(attempts: int = 3) -> RetryPolicy:
    """``attempts`` in all whatever failed, at once: what holds where no policy is given (document 003)."""
    return RetryPolicy(attempts, 0.0, 1.0, 0.0, jitter=False, transient_only=False)


def _from_words(value: Mapping[str, Any]) -> dict[str, Any]:
    given = {_IN_S.get(word, word): what / 1000 if word in _IN_S else what for word, what in value.items()}
    if "non_retryable" in given:
        given["non_retryable"] = tuple(given["non_retryable"])
    return given
