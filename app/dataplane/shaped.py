"""The records of one run, shaped; what an earlier run has dealt with is read once more where others depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from app.dataplane import reading
from app.dataplane.arranging import shaper_of
from app.dataplane.chunks import Chunk
from app.dataplane.context import ImportContext
from app.dataplane.origins import Origin
from app.dataplane.plan import Plan
from app.dataplane.spooling import UrlOrigin
from app.domain.tables import Table
from app.persistence.imports import Place


@dataclass(frozen=True, slots=True)
class Shaped:
    """An import that shapes its records."""

    context: ImportContext
    origin: Origin | UrlOrigin
    plan: Plan
    table: Table

    def chunks(self, chunks: Iterator[Chunk], *, done: int) -> Iterator[Chunk]:
        """The chunks, shaped.

        Args:
            done: Records of the file before them, which an earlier run has dealt with.
        Raises:
            JobError: ``import.field_unknown``: the plan names what the file does not have.
        """
        shaper = shaper_of(self.plan, self.table, self.context)
        if shaper is None:
            return chunks
        if done and shaper.remembers:
            shaper.recall(self._from_the_first(), done)
        return map(shaper.shape, chunks)

    def _from_the_first(self) -> Iterator[Chunk]:
        plan = self.plan
        with closing(reading.open_planned(self.context, self.origin, plan, plan.first_byte)) as source:
            first = Place(0, plan.first_byte, plan.first_line, 0)
            for chunk in reading.chunks_of(plan, reading.reader_of(plan, source, first)):
                self.context.tell()
                yield chunk
