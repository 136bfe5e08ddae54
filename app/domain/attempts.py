"""The attempts at a job, read off its audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.domain.jobs import Job, JobEvent
from app.domain.lifecycle import Event

_OUTCOMES: Final = {
    Event.COMPLETE: "completed",
    Event.RETRY: "retrying",
    Event.FAIL: "failed",
    Event.CANCEL: "cancelled",
    Event.RESCUE: "rescued",
    Event.HAND_BACK: "handed_back",
}
_NOT_COUNTED: Final = frozenset({Event.RESCUE, Event.HAND_BACK})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hold of a worker on a job.

    Args:
        fence: The fence it was held under: counts every start of the job, from 1.
        attempt: Its number by the job's policy; a rescue and the attempt after it have the same.
        is_counted: Whether it counts against the policy: a worker that was lost or shut down is not the job's fault.
        worker: The slot; ``worker_name`` is its process, as Celery calls it.
        ended_at: ``None`` while it runs.
        outcome: ``running``, ``completed``, ``retrying``, ``failed``, ``cancelled``, ``rescued`` or ``handed_back``.
        reason: Why it was rescued, handed back or cancelled.
        rows_done: The job's rows when it ended, those of earlier attempts included.
        wait_s: The wait that followed.
    """

    fence: int
    attempt: int
    is_counted: bool
    worker: str
    worker_name: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error: dict[str, Any] | None
    reason: str | None
    rows_done: int
    wait_s: float | None


def attempts(job: Job, events: Sequence[JobEvent]) -> list[Attempt]:
    """The attempts that ``events`` tell of: starts, and ends under the same fence, in order."""
    ends = {event.fence: event for event in events if event.type != Event.CLAIM}
    return [_attempt(job, event, ends.get(event.fence)) for event in events if event.type == Event.CLAIM]


def _attempt(job: Job, start: JobEvent, end: JobEvent | None) -> Attempt:
    said = end.data if end else {}
    return Attempt(
        fence=start.fence,
        attempt=start.data["attempt"],
        is_counted=end is None or end.type not in _NOT_COUNTED,
        worker=start.data["worker"],
        worker_name=start.data["worker_name"],
        started_at=start.at,
        ended_at=end.at if end else None,
        outcome=_OUTCOMES[Event(end.type)] if end else "running",
        error=said.get("error"),
        reason=said.get("reason"),
        # A job that still runs, and one that others ended, say none: they stand on the job.
        rows_done=said.get("rows_done", job.progress.rows_done),
        wait_s=said.get("wait_s"),
    )
