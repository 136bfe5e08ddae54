"""A sink of another package is brought the files of an export, one after another, when they all stand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.dataplane.origins import BUFFER_BYTES, S3Origin, Seekable
from app.domain.errors import InvalidRequestError, PermanentError, Problem
from app.domain.job_types import plugin_config
from app.domain.plugins import find
from app.domain.ports import ObjectRef
from app.domain.sink_plugins import SINKS, Sink, SinkFile
from tasks.context import RunContext
from tasks.export_state import ExportState


@dataclass(frozen=True, slots=True)
class Delivery:
    """A sink and its part of the job's config.

    Args:
        provider: What the config calls it.
        config: As its own model.
    """

    provider: str
    sink: Sink
    config: Any

    @classmethod
    def of(cls, provider: str, config: dict[str, Any]) -> Delivery:
        """The sink that a job names.

        Raises:
            PermanentError: ``plugin.not_found``, ``plugin.not_loaded``, ``sink.config_invalid``.
        """
        sink = find(SINKS, provider, Sink)
        return cls(provider, sink, plugin_config(sink.config, config, provider=provider, code="sink.config_invalid"))

    def bring(self, job: RunContext, state: ExportState, files: Sequence[tuple[ObjectRef, SinkFile]]) -> None:
        """Bring the files that no earlier run has brought; errors are the sink's."""
        for ref, file in files[state.delivered :]:
            self.hand(job, ref, file)
            state.delivered += 1
            job.checkpoint(state.as_json())

    def hand(self, job: RunContext, ref: ObjectRef, file: SinkFile) -> None:
        """Bring one file."""
        stored = Seekable(S3Origin(job.objects, ref), job.objects.head(ref), go_on=job.tell)
        with io.BufferedReader(stored, BUFFER_BYTES) as body:
            self.sink.deliver(job, self.config, file, body)


def check_provider(provider: str, config: dict[str, Any], *, at: str) -> None:
    """Whether there is such a sink and the config is one for it.

    Args:
        at: Where both stand in what was sent.
    Raises:
        InvalidRequestError: ``plugin.not_found``, ``plugin.not_loaded``, ``sink.config_invalid``.
    """
    try:
        Delivery.of(provider, config)
    except PermanentError as error:
        pointer = f"{at}/{'config' if error.code == 'sink.config_invalid' else 'provider'}"
        raise InvalidRequestError(
            error.detail, code=error.code, hint=error.hint, problems=(Problem(pointer, error.detail),)
        ) from None
