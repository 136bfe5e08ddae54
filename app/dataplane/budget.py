"""The error budget of an import: how many records it may refuse before somebody has to look."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.domain.errors import JobError, JobPaused


class OnBudget(StrEnum):
    """What becomes of a job whose budget is spent."""

    PAUSE = "pause"
    FAIL = "fail"


class OnInvalid(StrEnum):
    """What becomes of a row that is refused."""

    QUARANTINE = "quarantine"
    """It is kept in the ledger."""
    SKIP = "skip"
    """It is left out and counted."""
    FAIL = "fail"
    """It fails the job; its batch is taken back."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a job may spend.

    Args:
        max_errors: Refused records; ``None`` is any number of them.
        max_rate: Refused records as a part of those read, 0 to 1, from ``after_rows`` read records on.
    """

    max_errors: int | None
    max_rate: float
    after_rows: int
    on_budget: OnBudget

    def check(self, before: tuple[int, int], read: int, failed: int) -> None:
        """Stop a job that has refused too much.

        Args:
            before: What was read and refused when it was last stopped so: who lets it go on grants it the budget anew.
            read: Of the whole job, as is ``failed``.
        Raises:
            JobPaused: The budget is spent; ``JobError``: likewise, when that is to fail the job.
        """
        said = self._said(read - before[0], failed - before[1])
        if said is None:
            return
        spent = {"spent": {"read": read, "failed": failed}}
        if self.on_budget is OnBudget.PAUSE:
            raise JobPaused(f"{said}; resume to go on anyway", code="import.error_budget", data=spent)
        raise JobError(said, code="import.error_budget", data=spent)

    def _said(self, read: int, failed: int) -> str | None:
        if self.max_errors is not None and failed > self.max_errors:
            return f"{failed} records were refused, {self.max_errors} are allowed (max_errors)"
        if read >= self.after_rows and failed > self.max_rate * read:
            return f"{failed} of {read} records were refused, at most {self.max_rate:.0%} may be (max_error_rate)"
        return None
