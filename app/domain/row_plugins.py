"""Validators and enrichers: functions of other packages that look at the rows of imports, found by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.domain.job_types import JobConfig

VALIDATORS: Final = "haulier.validators"
ENRICHERS: Final = "haulier.enrichers"

Row = Mapping[str, str]
"""Values by column, as text; what is empty is NULL."""


@dataclass(frozen=True, slots=True)
class Validator:
    """A plug-in: a rule that rows of an import have to keep.

    Its entry point has the name that configs call it by.

    Args:
        check: Given some rows, with the columns that the config names, and the config's ``params``; what is wrong with
            those that are, by their place from 0. It is called many times for a file and remembers nothing.
        summary: One line for the catalogue.
    """

    check: Callable[[Sequence[Row], Mapping[str, Any]], Mapping[int, str]]
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Unenriched:
    """Why nothing could be found out about a row: the row is refused with this message."""

    message: str


Found = Mapping[str, Any] | Unenriched | None
"""What is known of a row, by name; ``None`` when nothing is, which is no fault."""


@dataclass(frozen=True, slots=True)
class Enricher:
    """A plug-in: a service that knows more about rows than the file does.

    Its entry point has the name that configs call it by.

    Args:
        config: The model of its part of the config.
        look_up: Given the job, that config and some rows, none twice, with the columns of the key: what is known of
            each, in their order. A ``TransientError`` is tried again; every other ``JobError``, and one that does not
            pass, refuses these rows, but a ``PermanentError`` fails the job.
        summary: One line for the catalogue.
    """

    config: type[JobConfig]
    look_up: Callable[[Any, Any, Sequence[Row]], Sequence[Found]]
    summary: str = ""
