"""A dry run: what an import of a file would do, found out by reading it, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from app.dataplane import reading
from app.dataplane.arranging import shaper_of
from app.dataplane.auto_map import AutoMap
from app.dataplane.batches import Encoder
from app.dataplane.chunks import Chunk
from app.dataplane.companions import companions_of
from app.dataplane.faults import Fault
from app.dataplane.inferring import infer
from app.dataplane.mapping import map_header, proposed
from app.dataplane.origins import Origin, PathOrigin
from app.dataplane.plan import Options, Plan
from app.dataplane.sheets import SheetSource, sheet_wanted
from app.dataplane.sources import READ_BYTES, ByteSource
from app.domain.error_codes import REMEDIES
from app.domain.errors import JobError, TransientError
from app.domain.failed_records import stage_of
from app.domain.tables import Table
from app.domain.texts import storable_json
from app.persistence.imports import Place
from config.settings import Settings

_INFERRED_ROWS: Final = 5_000
_SAMPLES: Final = 3
_SAMPLE_CHARACTERS: Final = 500
_OF_THE_FILE: Final = ("csv.", "json.", "xlsx.", "source.", "import.")
"""Codes of errors that the file itself has."""

Report = dict[str, Any]


@dataclass(slots=True)
class _Found:
    """What was found so far.

    Args:
        plan: How the file is read; ``None`` when it cannot be.
        size_bytes: Of the file as it is stored.
        end_byte: How far it was read, and ``stored_byte`` the same of the stored file; ``complete``: to its end.
        first: The first values of each field.
        groups: The refused records by code and field.
    """

    plan: Plan | None = None
    size_bytes: int = 0
    problems: list[Report] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0
    end_byte: int = 0
    stored_byte: int = 0
    read: int = 0
    blank: int = 0
    refused: int = 0
    first: list[list[bytes]] = field(default_factory=list)
    groups: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)

    def see(self, chunk: Chunk) -> None:
        """Take note of the chunk's values as they were read."""
        if not self.first or len(self.first[0]) < _INFERRED_ROWS:
            columns = zip_longest(self.first, chunk.columns, fillvalue=())
            self.first = [[*held, *new[: _INFERRED_ROWS - len(held)]] for held, new in columns]

    def count(self, chunk: Chunk, faults: dict[int, Fault], encoding: str) -> None:
        """Take note of what became of a chunk."""
        self.read += chunk.count
        self.blank += len(chunk.blanks)
        self.refused += len(faults)
        for place in sorted(faults):
            fault = faults[place]
            group = self.groups.setdefault((fault.code, fault.field), {"count": 0, "samples": []})
            group["count"] += 1
            if len(group["samples"]) < _SAMPLES:
                raw = chunk.raw(place).decode(encoding, "replace").rstrip("\r\n")[:_SAMPLE_CHARACTERS]
                group["samples"].append({"line": chunk.line_of(place), "message": fault.message, "raw": raw})

    def schema(self) -> list[Report]:
        """Each field by its first values."""
        names = () if self.plan is None else self.plan.names
        columns = [*self.first, *([] for _ in names)]
        return [infer(name, values).as_json() for name, values in zip(names, columns, strict=False)]

    def rejects(self) -> list[dict[str, Any]]:
        """The refused records by code and field, the largest group first."""
        groups = sorted(self.groups.items(), key=lambda group: -group[1]["count"])
        return [{"stage": stage_of(code), "code": code, "field": name, **group} for (code, name), group in groups]


@dataclass(frozen=True, slots=True)
class DryRun:
    """A file that is looked at.

    Args:
        table: Where it would go; without one only the file itself is looked at.
        most_rows: Records that are read, at least; ``None`` is all.
        rows_per_s: What imports into the table came to; ``None`` when that is not known.
        scans: Whether there may be a scanner for viruses to be asked, when the options want that.
        go_on: Called between pieces of work; raises when there is to be an end.
    """

    origin: Origin
    table: Table | None
    options: Options
    settings: Settings
    most_rows: int | None
    rows_per_s: float | None = None
    scans: bool = True
    go_on: Callable[[], None] = lambda: None

    def report(self) -> Report:
        """What was found; ``passed`` when every record that was read would be loaded.

        What only Postgres refuses is not known here, and services are not asked.
        """
        found = _Found()
        try:
            self._look(found)
        except TransientError:
            raise
        except JobError as error:
            if not error.code.startswith(_OF_THE_FILE):
                raise
            found.problems.append(_problem(error))
        told: Report = storable_json(self._told(found))
        return told

    def _look(self, found: _Found) -> None:
        settings, options = self.settings, self.options if self.scans else replace(self.options, scan=False)
        info = reading.checked(settings, self.origin, options, go_on=self.go_on)
        found.size_bytes = info.size_bytes
        if not reading.is_sheet(self.origin, info, options):
            self._look_at(self.origin, reading.look(settings, self.origin, info, self.table, options), found)
            return
        with TemporaryDirectory(prefix="haulier-") as folder:
            origin = PathOrigin(Path(folder), ("sheet",))
            wanted = sheet_wanted(settings, self.table, options)
            with (
                closing(SheetSource(settings, self.origin, info, wanted, go_on=self.go_on)) as sheet,
                (Path(folder) / "sheet").open("wb") as file,
            ):
                while lines := sheet.read(READ_BYTES):
                    file.write(lines)
                    self.go_on()
            self._look_at(
                origin, reading.plan_of_sheet(settings, sheet.found, origin.info(), self.table, options), found
            )

    def _look_at(self, origin: Origin, plan: Plan, found: _Found) -> None:
        """Read the records of what is read by ``plan``."""
        found.plan = plan
        try:
            plan = self._mapped(plan)
        except JobError as error:
            found.problems.append(_problem(error))  # and the file is looked at all the same
        begin = monotonic()
        with closing(reading.opened(self.settings, origin, plan, plan.first_byte)) as source:
            self._read(plan, source, found)
        found.seconds = monotonic() - begin

    def _told(self, found: _Found) -> Report:
        plan = found.plan
        return {
            "validate_only": True,
            "passed": not found.problems and not found.refused,
            "table": self.table.name if self.table else None,
            **(plan.seen if plan else {}),
            "problems": found.problems,
            "schema": found.schema(),
            "auto_map": self.options.auto_map is not None,
            "mapping": self._proposed(plan),
            "records": {
                "read": found.read,
                "blank": found.blank,
                "rejected": found.refused,
                "complete": found.complete,
            },
            "rejects": found.rejects(),
            "not_checked": self._not_checked(),
            "estimate": self._estimate(plan, found) if plan else None,
            "written": "nothing: neither rows nor a ledger",
        }

    def _mapped(self, plan: Plan) -> Plan:
        """The plan with its columns."""
        if self.table is None:
            return plan
        mapped = map_header(plan.names, self.table, self.options, max_columns=self.settings.max_columns)
        return replace(plan, mapped=mapped)

    def _proposed(self, plan: Plan | None) -> list[Report]:
        """What ``auto_map`` makes of the header, whether it was asked for or not."""
        if plan is None or self.table is None:
            return []
        options = self.options if self.options.auto_map else replace(self.options, auto_map=AutoMap())
        try:
            return [one.as_json() for one in proposed(plan, self.table, options)]
        except JobError:
            return []  # the mapping that was given does not fit: that is among the problems

    def _read(self, plan: Plan, source: ByteSource, found: _Found) -> None:
        place = Place(0, plan.first_byte, plan.first_line, 0)
        reader = reading.reader_of(plan, source, place)
        chunks = reading.chunks_of(plan, reader)
        fate = self._fate(plan, self.table) if self.table and not found.problems else _as_read
        for chunk in chunks:
            self.go_on()
            found.see(chunk)
            found.count(chunk, fate(chunk), plan.encoding)
            if self.most_rows is not None and found.read >= self.most_rows:
                break
        else:
            found.complete = True
        found.end_byte = reader.next_byte
        found.stored_byte = source.stored_bytes_read if plan.is_packed else reader.next_byte

    def _fate(self, plan: Plan, table: Table) -> Callable[[Chunk], dict[int, Fault]]:
        """What tells the records of a chunk that would be refused."""
        shaper = shaper_of(plan, table, None)
        filled = {name for spec in self.options.shaping.enrich for name in spec.fields}
        columns = (replace(one, required=False) if one.name in filled else one for one in table.columns)
        lenient = replace(table, columns=tuple(columns))
        encoder = Encoder(plan.mapped, lenient, companions_of(table), keeps_empty=plan.keeps_empty)
        return lambda chunk: encoder.encode_one(shaper.shape(chunk) if shaper else chunk).faults

    def _not_checked(self) -> list[str]:
        shaping = self.options.shaping
        asked = shaping.without_services()
        left_out = [rule for rule in shaping.rules if rule not in asked.rules]
        return [
            *(["viruses: no scanner is asked"] if self.options.scan and not self.scans else []),
            *(f"enrich by {spec.provider}: no service is asked" for spec in shaping.enrich),
            *(f"{name} is required: a service fills it" for name in self._required_later()),
            *(f"rule {rule.rule} of {', '.join(rule.fields)}: a service fills it" for rule in left_out),
            *([] if self.table is None else ["what Postgres alone refuses"]),
        ]

    def _required_later(self) -> list[str]:
        """Required columns that services fill: whether they are empty is not known."""
        filled = [name for spec in self.options.shaping.enrich for name in spec.fields]
        columns = [] if self.table is None else [self.table.column(name) for name in dict.fromkeys(filled)]
        return [column.name for column in columns if column is not None and column.required]

    def _estimate(self, plan: Plan, found: _Found) -> Report:
        """Rows, bytes and time of the whole, by the part that was read."""
        grows = 1.0 if found.complete or not found.stored_byte else max(1.0, plan.size_bytes / found.stored_byte)
        rows = round(found.read * grows)
        rate = self.rows_per_s or (found.read / found.seconds if found.read and found.seconds else None)
        return {
            "rows": rows,
            "rejected": round(found.refused * grows),
            "stored_bytes": found.size_bytes,
            "bytes": round(found.end_byte * grows),
            "seconds": None if rate is None else round(rows / rate, 1),
            "seconds_by": "past imports" if self.rows_per_s else "reading alone",
        }


def _as_read(chunk: Chunk) -> dict[int, Fault]:
    return chunk.faults


def _problem(error: JobError) -> Report:
    return {"code": error.code, "message": error.detail, "hint": error.hint or REMEDIES.get(error.code)}
