"""What one worker process has: its settings, its heart, its bell and the job types; made after the fork."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.job_types import Registry
from app.domain.ports import Bell
from tasks.slot import Heart


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """The process's own things."""

    heart: Heart
    bell: Bell
    registry: Registry


_current: WorkerProcess | None = None


def enter(made: WorkerProcess) -> None:
    """Set what this process has."""
    global _current  # noqa: PLW0603 - Celery gives a task no other way to its process's things
    _current = made


def process() -> WorkerProcess:
    """What this process has.

    Raises:
        RuntimeError: It is no worker, or a bell came before the worker was ready.
    """
    if _current is None:
        raise RuntimeError("this process is not a Haulier worker that is ready")
    return _current
