"""What a job type logs, on its way into the job's log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from logging import LoggerAdapter
from typing import Any, Final

from sqlalchemy.orm import Session

from app.domain.jobs import Job
from app.domain.texts import storable
from app.persistence import job_logs
from app.persistence.job_logs import LogLine

MOST_LINES: Final = 1_000
MOST_CHARACTERS: Final = 1_000_000
_LONGEST: Final = 4_000
_job_log: Final = logging.getLogger("haulier.job")


class LogLines:
    """Holds the lines of one run until they are written; what is over the cap is counted. Not safe in threads."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._waiting: list[LogLine] = []
        self._number = 0
        self._characters = 0
        self._dropped = 0
        self._told = 0

    def __bool__(self) -> bool:
        """Whether lines wait to be written."""
        return bool(self._waiting) or self._dropped > self._told

    def add(self, level: int, event: str, data: Mapping[str, Any]) -> None:
        """Take a line."""
        kept = {name: _plain(value) for name, value in data.items()}
        size = len(event) + sum(len(name) + len(str(value)) for name, value in kept.items())
        if self._number >= MOST_LINES or self._characters + size > MOST_CHARACTERS:
            self._dropped += 1
            return
        self._characters += size
        self._append(logging.getLevelName(level).lower(), storable(event[:_LONGEST]), kept)

    def write(self, session: Session) -> int:
        """Store what waits; how many lines, for ``written`` once that is committed."""
        if self._dropped > self._told:
            self._append("warning", "log.truncated", {"lines_dropped": self._dropped - self._told})
            self._told = self._dropped
        if self._waiting:
            job_logs.add(session, self._job, self._waiting)
        return len(self._waiting)

    def written(self, count: int) -> None:
        """Let go of lines that are committed."""
        del self._waiting[:count]

    def _append(self, level: str, event: str, data: dict[str, Any]) -> None:
        self._number += 1
        self._waiting.append(LogLine(self._job.fence, self._number, datetime.now(UTC), level, event, data))


class JobLog(LoggerAdapter[logging.Logger]):
    """Logs with a job's facts beside those that a line brings, and keeps the line for the job's own log."""

    def __init__(self, job: Job, keep: Callable[[int, str, Mapping[str, Any]], None]) -> None:
        facts = {"job_id": str(job.id), "tenant": job.tenant, "type": job.type, "attempt": job.attempts}
        super().__init__(_job_log, facts)
        self._keep = keep

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line."""
        super().log(level, msg, *args, **kwargs)
        if level >= logging.INFO or self.isEnabledFor(level):
            self._keep(level, str(msg) % args if args else str(msg), _facts(kwargs))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The line as it is logged."""
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


def exception_facts() -> dict[str, Any]:
    """The exception that is handled now, as a line bears it: the end of its traceback, where its own text stands."""
    return {"exception": traceback.format_exc()[-_LONGEST:]}


def _facts(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(kwargs.get("extra") or {})
    return facts | exception_facts() if kwargs.get("exc_info") else facts


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    return storable(str(value)[:_LONGEST])
