"""Sinks of other packages: functions that take the files of exports elsewhere, found by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from app.domain.job_types import JobConfig

SINKS: Final = "haulier.sinks"


@dataclass(frozen=True, slots=True)
class SinkFile:
    """A file that a sink is to take.

    Args:
        name: Its key, relative to the tenant's place: the same whenever it is brought.
        size_bytes: As it is stored, and so of what is read.
        sha256: Likewise, in hex.
        rows: ``None`` for the manifest, which comes last.
    """

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    rows: int | None


@dataclass(frozen=True, slots=True)
class Sink:
    """A plug-in: a place that files of exports are taken to.

    Its entry point has the name that configs call it by.

    Args:
        config: The model of its part of the config.
        deliver: Given the job, that config, a file and its bytes; its return says that the file has arrived, what it
            raises is as of a job type. A file may be brought again, by a run that follows a lost one, and then takes
            the place of what came before under its name.
        summary: One line for the catalogue.
    """

    config: type[JobConfig]
    deliver: Callable[[Any, Any, SinkFile, BinaryIO], None]
    summary: str = ""
