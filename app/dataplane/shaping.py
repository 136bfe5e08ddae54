"""What an import does to its records between reading and checking types: transform, enrich, and hold to rules.

Each stage looks at whole columns of a chunk, and a record that one refuses is not seen by the next. Rules come last, as
they are to see what services gave; but ``unique`` comes before these, for whether a value was there before must not
depend on anything that may come out otherwise in another run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Final

from pydantic import TypeAdapter

from app.dataplane.chunks import NULL, Chunk
from app.dataplane.enriching import Enrich, Enriching
from app.dataplane.faults import Fault
from app.dataplane.rules import Custom, Rule, Unique
from app.dataplane.transforms import Transform, Values
from app.dataplane.uniqueness import Seen
from app.domain.job_types import JobContext
from app.domain.tables import Column

_TRANSFORMS: Final = TypeAdapter[list[Transform]](list[Transform])
_ENRICH: Final = TypeAdapter(list[Enrich])
_RULES: Final = TypeAdapter[list[Rule]](list[Rule])
_Nulls = dict[int, set[int]]


@dataclass(frozen=True, slots=True)
class Shaping:
    """What a job's config asks for; nothing, unless it says so."""

    transforms: Sequence[Transform] = ()
    enrich: Sequence[Enrich] = ()
    rules: Sequence[Rule] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.transforms or self.enrich or self.rules)

    def as_json(self) -> list[Any]:
        """All of it in JSON types."""
        return [[one.model_dump(mode="json") for one in stage] for stage in (self.transforms, self.enrich, self.rules)]

    @classmethod
    def from_json(cls, kept: Sequence[Any]) -> Shaping:
        """What ``as_json`` wrote."""
        transforms, enrich, rules = kept
        return cls(
            _TRANSFORMS.validate_python(transforms), _ENRICH.validate_python(enrich), _RULES.validate_python(rules)
        )

    @property
    def made(self) -> list[str]:
        """Columns that it fills although the file need not have them, each once."""
        written = [name for one in self.transforms if one.targets != (one.source,) for name in one.targets]
        written += [name for one in self.enrich for name in one.fields]
        return list(dict.fromkeys(written))

    @property
    def written(self) -> list[str]:
        """Columns that it may give other values, each once."""
        names = [name for one in self.transforms for name in one.targets]
        return list(dict.fromkeys([*names, *(name for one in self.enrich for name in one.fields)]))

    @property
    def sources(self) -> list[str]:
        """Fields that it needs, which the file must have or a stage before have made."""
        needed = [one.source for one in self.transforms if one.source is not None]
        return [*needed, *(name for one in self.enrich for name in one.key)]

    @property
    def may_differ(self) -> bool:
        """Whether the same record may fare otherwise another time: what is not ours is not sure to repeat itself."""
        return bool(self.enrich) or any(isinstance(rule, Custom) for rule in self.rules)

    def without_services(self) -> Shaping:
        """What can be said of a record without asking anybody: rules that look at enriched columns are left out too."""
        unknown = {name for one in self.enrich for name in one.fields}
        return replace(self, enrich=(), rules=[one for one in self.rules if not unknown & set(one.fields)])


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a chunk stand.

    Args:
        positions: Of columns by name, and of headers that are no column's.
        columns: The columns by name.
        width: Fields that the reader gives; those behind are added.
    """

    positions: Mapping[str, int]
    columns: Mapping[str, Column]
    width: int

    @property
    def added(self) -> int:
        """How many fields are added."""
        return max(0, max(self.positions.values(), default=-1) + 1 - self.width)


@dataclass(slots=True)
class Shaper:
    """Does it to the chunks of one run, in their order.

    Args:
        job: Whose run it is; only enriching needs it.
        keeps_null: NULL comes as ``chunks.NULL``. It is empty here, as empty text is; what is empty in the end is what
            it was, and NULL where the file has no such field.
    """

    shaping: Shaping
    layout: Layout
    job: JobContext | None
    keeps_null: bool = False
    _seen: list[tuple[Unique, Seen]] = field(init=False)
    _enriching: list[Enriching] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = [(rule, Seen()) for rule in self.shaping.rules if isinstance(rule, Unique)]
        self._enriching = [Enriching(spec, self.job) for spec in self.shaping.enrich if self.job is not None]

    @property
    def remembers(self) -> bool:
        """Whether what becomes of a record depends on those before it."""
        return bool(self._seen)

    def shape(self, chunk: Chunk) -> Chunk:
        """The chunk, changed; refused records are among its faults."""
        if chunk.columns:
            nulls = _without_nulls(chunk) if self.keeps_null else {}
            for stage in (self._transformed, self._repeated, self._enriched, self._broken):
                _refuse(chunk, stage(chunk))
            if self.keeps_null:
                self._with_nulls(chunk, nulls)
        return chunk

    def _with_nulls(self, chunk: Chunk, nulls: _Nulls) -> None:
        """Put NULL back where nothing came in its place, and into what was added."""
        for position, column in enumerate(chunk.columns):
            was_null = nulls.get(position, set())
            if position >= self.layout.width:
                chunk.columns[position] = [value or NULL for value in column]
            elif was_null:
                pairs = zip(column, chunk.members, strict=True)
                chunk.columns[position] = [value or (NULL if member in was_null else value) for value, member in pairs]

    def forget(self) -> None:
        """The last chunk comes once more: its values are not those of records before it."""
        for _, seen in self._seen:
            seen.forget()

    def keep(self) -> None:
        """The last chunk does not come again."""
        for _, seen in self._seen:
            seen.keep()

    def recall(self, chunks: Iterator[Chunk], records: int) -> None:
        """Learn which values the first ``records`` of the file have, where an earlier run has dealt with them."""
        for chunk in chunks:
            if chunk.columns:
                if self.keeps_null:
                    _without_nulls(chunk)
                _refuse(chunk, {place: _PASSED for place, member in enumerate(chunk.members) if member >= records})
                _refuse(chunk, self._transformed(chunk))
                self._repeated(chunk)
            records -= chunk.count
            if records <= 0:
                return

    def _transformed(self, chunk: Chunk) -> dict[int, Fault]:
        layout, columns, faults = self.layout, chunk.columns, dict[int, Fault]()
        columns += [[b""] * len(chunk.members) for _ in range(layout.added)]
        for one in self.shaping.transforms:
            name = one.source or one.targets[0]
            column = layout.columns.get(name)
            changed, found = one.apply(columns[layout.positions[name]], column.type if column else None)
            for target, values in zip(one.targets, changed, strict=True):
                columns[layout.positions[target]] = values
            faults = {**found, **faults}
            chunk.plain = chunk.plain and one.source is not None
        return faults

    def _repeated(self, chunk: Chunk) -> dict[int, Fault]:
        """The faults of records that have a value again."""
        faults: dict[int, Fault] = {}
        for rule, seen in self._seen:
            values = self._values(chunk, rule.fields)
            for place in seen.repeated(rule.keys(values)):
                faults.setdefault(place, Fault(rule.code, rule.message or rule.said(values, place), rule.fields[0]))
        return faults

    def _enriched(self, chunk: Chunk) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        for spec, enriching in zip(self.shaping.enrich, self._enriching, strict=False):
            chunk.plain = False
            targets = {name: self._values(chunk, [name])[0] for name in spec.fields}
            faults = {**enriching.fill(self._values(chunk, spec.key), targets), **faults}
        return faults

    def _broken(self, chunk: Chunk) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        for rule in self.shaping.rules:
            if isinstance(rule, Unique):
                continue
            columns = [self.layout.columns[name] for name in rule.fields]
            for place, said in rule.broken(self._values(chunk, rule.fields), columns):
                faults.setdefault(place, Fault(rule.code, rule.message or said, rule.fields[0]))
        return faults

    def _values(self, chunk: Chunk, names: Sequence[str]) -> list[Values]:
        return [chunk.columns[self.layout.positions[name]] for name in names]


def _without_nulls(chunk: Chunk) -> _Nulls:
    """Make NULL empty; the records that had it, by the position of the field."""
    nulls: _Nulls = {}
    for position, column in enumerate(chunk.columns):
        if NULL in column:
            nulls[position] = {member for member, value in zip(chunk.members, column, strict=True) if value == NULL}
            chunk.columns[position] = [b"" if value == NULL else value for value in column]
    return nulls


_PASSED = Fault("", "")


def _refuse(chunk: Chunk, faults: Mapping[int, Fault]) -> None:
    """Take the good records at these places from the chunk's columns to its faults."""
    if not faults:
        return
    chunk.faults.update({chunk.members[place]: fault for place, fault in faults.items()})
    good = [place not in faults for place in range(len(chunk.members))]
    chunk.members = list(compress(chunk.members, good))
    chunk.columns = [list(compress(column, good)) for column in chunk.columns]
