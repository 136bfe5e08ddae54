"""The retry policy: how many attempts a job has and how long it waits between them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again.

    Args:
        max_attempts: Attempts in all, the first included. At least 1.
        initial_interval_s: Wait after the first failure.
        backoff_coefficient: Factor from one wait to the next; 1 waits the same time always.
        max_interval_s: The longest wait.
        jitter: Draw the wait evenly from zero to the computed one.
        transient_only: Retry only what may pass (``TransientError``); otherwise every failure.
    """

    max_attempts: int = 3
    initial_interval_s: float = 1.0
    backoff_coefficient: float = 2.0
    max_interval_s: float = 60.0
    jitter: bool = True
    transient_only: bool = True

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after ``failures`` failed attempts (1 or more), before jitter.

        ``min(initial_interval * coefficient ** i, max_interval)`` with i from 0, worked out by logarithms, so that no
        exponent overflows.
        """
        exponent = failures - 1
        if self.initial_interval_s == 0:
            return 0.0
        log_wait = math.log(self.initial_interval_s) + exponent * math.log(self.backoff_coefficient)
        if self.max_interval_s == 0 or log_wait >= math.log(self.max_interval_s):
            return self.max_interval_s
        return math.exp(log_wait)

    def next_wait_s(self, failures: int, *, retry_after_s: float | None = None) -> float | None:
        """Seconds until the next attempt, or ``None`` when there is none left.

        Args:
            failures: Attempts that failed so far, this one included.
            retry_after_s: What the other side asked for; never waited less than that.
        """
        if failures >= self.max_attempts:
            return None
        wait_s = self.wait_s(failures)
        if self.jitter:
            wait_s *= random.random()  # noqa: S311 - spreads load, guards nothing
        return max(wait_s, retry_after_s or 0.0)

    def as_json(self) -> dict[str, Any]:
        """As it is stored on the job and shown by the API."""
        return {
            "max_attempts": self.max_attempts,
            "initial_interval_s": self.initial_interval_s,
            "backoff_coefficient": self.backoff_coefficient,
            "max_interval_s": self.max_interval_s,
            "jitter": self.jitter,
            "transient_only": self.transient_only,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RetryPolicy:
        """The inverse of ``as_json``."""
        return cls(**value)


def fixed_interval(retries: int, interval_s: float) -> RetryPolicy:
    """``retries`` more attempts after the first whatever failed, ``interval_s`` apart (document 004)."""
    return RetryPolicy(retries + 1, interval_s, 1.0, interval_s, jitter=False, transient_only=False)
