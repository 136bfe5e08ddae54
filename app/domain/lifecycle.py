"""The lifecycle of a job: its states, the events that move it, and the one table that says which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """Where a job is. ``docs/lifecycle.md`` draws it."""

    BLOCKED = "blocked"
    """Waits for other jobs, or for its place in a batch."""
    OPEN = "open"
    """Stored, not admitted: ``run_after`` may lie ahead, ``paused`` may be set, the queue may be full."""
    QUEUED = "queued"
    """Admitted: the next free worker of its queue may take it."""
    RUNNING = "running"
    """Held by a worker slot under a fence."""
    RETRY_WAIT = "retry_wait"
    """An attempt failed; due again at ``run_after``."""
    COMPLETED = "completed"
    """Ended well; ``outcome`` says success, partial or empty."""
    FAILED = "failed"
    """Gave up."""
    CANCELLED = "cancelled"
    """Ended on request; ``cancel_reason`` says whose: user, parent, timeout, skipped."""


TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
"""States that never move by themselves; a person may re-open failed and cancelled jobs."""
WAITING: Final = frozenset({JobState.BLOCKED, JobState.OPEN, JobState.QUEUED, JobState.RETRY_WAIT})
"""States of a job that is neither at work nor over."""


class Event(StrEnum):
    """What happens to a job. The value is the name in the audit trail and on the event API."""

    SUBMIT = "job.submitted"
    RELEASE = "job.released"
    ADMIT = "job.admitted"
    RETURN = "job.returned"
    CLAIM = "job.started"
    EXPAND = "job.expanded"
    COMPLETE = "job.completed"
    RETRY = "job.retrying"
    FAIL = "job.failed"
    RESCUE = "job.rescued"
    HAND_BACK = "job.handed_back"
    CANCEL = "job.cancelled"
    REOPEN = "job.reopened"
    RERUN = "job.rerun"
    RENEW = "job.renewed"
    # Facts that move no state
    REQUEST_CANCEL = "job.cancel_requested"
    PAUSE = "job.paused"
    RESUME = "job.resumed"
    RESCHEDULE = "job.rescheduled"


@dataclass(frozen=True, slots=True)
class Move:
    """From any of ``sources`` to ``target``."""

    sources: frozenset[JobState]
    target: JobState


_S = JobState


def _move(*sources: JobState, to: JobState) -> Move:
    return Move(frozenset(sources), to)


TRANSITIONS: Final[Mapping[Event, Move]] = {
    Event.RELEASE: _move(_S.BLOCKED, _S.RETRY_WAIT, to=_S.OPEN),
    Event.ADMIT: _move(_S.OPEN, _S.RETRY_WAIT, to=_S.QUEUED),
    Event.RETURN: _move(_S.QUEUED, to=_S.OPEN),
    Event.CLAIM: _move(_S.QUEUED, to=_S.RUNNING),
    Event.EXPAND: _move(_S.OPEN, to=_S.RUNNING),
    Event.COMPLETE: _move(_S.RUNNING, to=_S.COMPLETED),
    Event.RETRY: _move(_S.RUNNING, to=_S.RETRY_WAIT),
    Event.FAIL: _move(_S.RUNNING, _S.BLOCKED, to=_S.FAILED),
    Event.RESCUE: _move(_S.RUNNING, to=_S.OPEN),
    Event.HAND_BACK: _move(_S.RUNNING, to=_S.OPEN),
    Event.CANCEL: _move(_S.BLOCKED, _S.OPEN, _S.QUEUED, _S.RUNNING, _S.RETRY_WAIT, to=_S.CANCELLED),
    Event.REOPEN: _move(_S.FAILED, _S.CANCELLED, to=_S.OPEN),
    Event.RERUN: _move(_S.FAILED, to=_S.OPEN),
    Event.RENEW: _move(_S.FAILED, _S.CANCELLED, to=_S.BLOCKED),
}
"""Every way a job's state may change. Nothing else changes one."""


def is_legal(source: JobState, target: JobState) -> bool:
    """Whether some event leads from ``source`` to ``target``; what the audit trail is checked against."""
    return any(source in move.sources and target == move.target for move in TRANSITIONS.values())
