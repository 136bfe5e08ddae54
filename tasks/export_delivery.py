"""A sink of another package is brought the files of an export, one after another, when they all stand."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.dataplane.sources import ByteSource, StoredObject
from app.domain.job_types import plugin_config
from app.domain.plugins import find
from app.domain.ports import ObjectRef
from app.domain.sink_plugins import SINKS, Sink, SinkFile
from tasks.context import RunContext
from tasks.export_state import ExportState

_PIECE_BYTES: Final = 1 << 20


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
            source = StoredObject(job.objects, ref, job.objects.head(ref))
            with io.BufferedReader(_Body(source, job.tell), _PIECE_BYTES) as body:
                self.sink.deliver(job, self.config, file, body)
            state.delivered += 1
            job.checkpoint(state.as_json())


class _Body(io.RawIOBase):
    """A source as a file; each read says that the job is alive, and ends it when it is to stop."""

    def __init__(self, source: ByteSource, tell: Callable[[], None]) -> None:
        super().__init__()
        self._source = source
        self._tell = tell

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed says Buffer, io gives this
        """Fill ``buffer`` as far as one read goes."""
        self._tell()
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()
        super().close()
