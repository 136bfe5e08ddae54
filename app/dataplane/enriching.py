"""Columns of an import that a service fills: it is asked by batches, and once for a key that recurs."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pydantic import Field, field_validator

from app.dataplane import http_enricher
from app.dataplane.faults import Fault
from app.dataplane.transforms import Name, Values
from app.domain.errors import JobError, PermanentError, TransientError
from app.domain.job_types import JobConfig, JobContext, plugin_config
from app.domain.plugins import find
from app.domain.row_plugins import ENRICHERS, Enricher, Found, Row, Unenriched
from app.domain.texts import storable

_BUILT_IN: Final = {"http": http_enricher.ENRICHER}
_TRIES: Final = 3
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_KNOWN_KEYS: Final = 50_000
_MOST_VALUE_BYTES: Final = 65_536
_MOST_SAID: Final = 500

Key = tuple[bytes, ...]
Answer = dict[str, bytes] | Fault
"""What is to be written by column, or why the rows of the key are refused."""


class Enrich(JobConfig):
    """Whom to ask, with what, and where the answers go."""

    provider: Name = Field(description="http, or the name of an entry point in the group haulier.enrichers.")
    key: list[Name] = Field(min_length=1, max_length=20, description="Columns or headers that are sent.")
    fields: dict[Name, Name] = Field(
        min_length=1, max_length=100, description="Column to what the answer calls it; a dot leads into an object."
    )
    batch_size: int = Field(100, ge=1, le=10_000, description="Keys that are sent together.")
    overwrite: bool = Field(False, description="Replace what the file has; else empty values alone are filled.")
    config: dict[str, Any] = Field(default_factory=dict, description="The provider's own.")

    @field_validator("fields", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {one: one for one in value} if isinstance(value, list) and all(map(_is_text, value)) else value

    @cached_property
    def plugin(self) -> Enricher:
        """The provider's; a PermanentError when it cannot be had."""
        return _BUILT_IN.get(self.provider) or find(ENRICHERS, self.provider, Enricher, besides=_BUILT_IN)

    def parsed(self) -> Any:
        """The provider's config.

        Raises:
            PermanentError: There is no such provider, or the config is not one for it; the text names the places.
        """
        return plugin_config(self.plugin.config, self.config, provider=self.provider, code="enrich.config_invalid")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


class Enriching:
    """Asks one provider for the rows of one run."""

    def __init__(self, spec: Enrich, job: JobContext) -> None:
        self._spec = spec
        self._job = job
        self._config = spec.parsed()
        self._known: OrderedDict[Key, Answer] = OrderedDict()

    def fill(self, keys: Sequence[Values], targets: Mapping[str, Values]) -> dict[int, Fault]:
        """Write what is known of the rows into ``targets``; the rows whose key could not be asked for, by place.

        Args:
            keys: The columns of the key; a row whose every one is empty is not asked for.
        """
        rows = list(zip(*keys, strict=True))
        answers = self._answers({row for row in rows if any(row)})
        faults: dict[int, Fault] = {}
        for place, row in enumerate(rows):
            answer = answers.get(row)
            if isinstance(answer, Fault):
                faults[place] = answer
            elif answer:
                for column, value in answer.items():
                    if self._spec.overwrite or not targets[column][place]:
                        targets[column][place] = value
        return faults

    def _answers(self, wanted: set[Key]) -> dict[Key, Answer]:
        answers = {key: self._known[key] for key in wanted if key in self._known}
        unknown = sorted(wanted - answers.keys())
        for begin in range(0, len(unknown), self._spec.batch_size):
            some = unknown[begin : begin + self._spec.batch_size]
            answers.update(zip(some, self._asked(some), strict=True))
        for key, answer in answers.items():
            self._known[key] = answer
            self._known.move_to_end(key)
        while len(self._known) > _KNOWN_KEYS:
            self._known.popitem(last=False)
        return answers

    def _asked(self, keys: Sequence[Key]) -> Iterator[Answer]:
        rows = [dict(zip(self._spec.key, map(bytes.decode, key), strict=True)) for key in keys]
        try:
            found = self._looked_up(rows)
        except PermanentError:
            raise
        except JobError as error:
            return iter([self._fault(f"the provider failed: {error.detail}")] * len(keys))
        if len(found) != len(keys):
            said = self._fault(f"the provider was asked for {len(keys)} rows and answered {len(found)}")
            return iter([said] * len(keys))
        return map(self._answer, found)

    def _looked_up(self, rows: Sequence[Row]) -> Sequence[Found]:
        """Ask; what may pass is tried again after a while.

        Raises:
            JobError: It did not pass, or cannot.
        """
        for tried in range(1, _TRIES + 1):
            self._job.check()
            try:
                return self._spec.plugin.look_up(self._job, self._config, rows)
            except TransientError as error:
                if tried == _TRIES:
                    raise
                wait_s = error.retry_after_s or _FIRST_WAIT_S * 4 ** (tried - 1)
                self._job.wait(min(wait_s, _LONGEST_WAIT_S))
        raise AssertionError

    def _answer(self, found: Found) -> Answer:
        if isinstance(found, Unenriched):
            return self._fault(found.message)
        try:
            values = {column: _text(_at(found or {}, path)) for column, path in self._spec.fields.items()}
        except ValueError as error:
            return self._fault(f"the provider's answer cannot be kept: {error}")
        return {column: value for column, value in values.items() if value}

    def _fault(self, message: str) -> Fault:
        said = storable(f"{self._spec.provider}: {message}")[:_MOST_SAID]
        return Fault("enrich.failed", said, next(iter(self._spec.fields)))


def _at(found: Mapping[str, Any], path: str) -> Any:
    """What stands at a path; a name that holds dots itself goes before."""
    if path in found:
        return found[path]
    value: Any = found
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> bytes:
    """A value of JSON as a file would have it; ValueError when no file could."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    data = text.encode()
    if b"\0" in data:
        raise ValueError("a text holds a NUL character")
    if len(data) > _MOST_VALUE_BYTES:
        raise ValueError(f"a value has at most {_MOST_VALUE_BYTES} bytes, got {len(data)}")
    return data
