"""Which field of a file goes to which column: by the job's mapping, by its name, or by likeness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from app.dataplane.auto_map import Proposal, propose
from app.dataplane.companions import Companions, companions_of
from app.dataplane.plan import Mapped, Options, Plan
from app.domain.errors import JobError
from app.domain.tables import Column, Table
from app.domain.texts import is_storable, storable

_DELIMITERS: Final = (";", "\t", "|", ",")
_MOST_NAMED: Final = 10
"""Unknown headers that a message names; its data has all of them."""


def mapped_to(plan: Plan, table: Table, options: Options, *, max_columns: int) -> Plan:
    """The plan with its columns, and with what it was seen to be mapped by; errors as ``map_header``."""
    seen = dict(plan.seen)
    if options.auto_map:
        seen["mapping"] = [one.as_json() for one in proposed(plan, table, options)]
    else:
        seen.pop("mapping", None)
    return replace(plan, mapped=map_header(plan.names, table, options, max_columns=max_columns), seen=seen)


def replanned(plan: Plan, table: Table, options: Options, place: str, *, max_columns: int) -> Plan:
    """The plan under another config, which reads the same records.

    Raises:
        JobError: ``import.config_changed``: it would read others; or as ``map_header``.
    """
    if plan.records != options.records_fingerprint(place, table.name):
        raise JobError(
            "the config now says otherwise where the file lies, how its records are found, which table they go to, or "
            "whether the job can be reverted",
            code="import.config_changed",
        )
    changed = replace(
        plan,
        fingerprint=options.fingerprint(place, table.name),
        # Never more than before: a lane that was not there would begin behind the others.
        lanes=1 if options.shaping.may_differ else plan.lanes,
        null_tokens=options.null_tokens,
        ignore_unknown=options.ignore_unknown,
        keeps_empty=options.keeps_empty,
        shaping=options.shaping,
    )
    return mapped_to(changed, table, options, max_columns=max_columns)


def proposed(plan: Plan, table: Table, options: Options) -> list[Proposal]:
    """What becomes of each field of a file, and how sure that is."""
    columns = Columns(table, companions_of(table) if options.companions else None)
    return proposals_of([name.strip() for name in plan.names], columns, options)


def map_header(header: Sequence[str], table: Table, options: Options, *, max_columns: int) -> Mapped:
    """Find the column of each field.

    Raises:
        JobError: ``csv.too_many_columns``, ``csv.header_invalid``, ``csv.header_duplicate``, ``csv.header_unknown``,
            ``csv.header_missing``.
    """
    if len(header) > max_columns:
        raise JobError(
            f"the header has {len(header)} fields, at most {max_columns} are taken", code="csv.too_many_columns"
        )
    names = [name.strip() for name in header]
    _refuse_unstorable(names)
    _refuse_duplicates(names)
    columns = Columns(table, companions_of(table) if options.companions else None)
    needed = {folded(name) for name in options.shaping.sources}
    found: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for position, proposal in enumerate(proposals_of(names, columns, options)):
        name, column = proposal.header, proposal.column
        if column is None:
            if folded(name) not in needed:
                unknown[name] = position
            continue
        if column in found:
            raise JobError(
                f"the headers {names[found[column]]!r} and {name!r} both stand for column {column!r}",
                code="csv.header_duplicate",
            )
        found[column] = position
    if unknown and not (options.ignore_unknown or options.auto_map):
        raise _unknown(unknown, names, columns)
    for name in options.shaping.made:
        found.setdefault(name, max([len(names) - 1, *found.values()]) + 1)
    mapped = columns.mapped(found)
    _refuse_missing(mapped, columns, named=bool(names))
    if not options.ignore_unknown and set(mapped.companion_columns) < columns.companions_among(found):
        nameless = ", ".join(sorted(columns.companions_among(found)))
        raise JobError(
            f"the header has {nameless}, but not {columns.companion_name}, without which they are nobody's",
            code="csv.header_missing",
            data={"missing": [columns.companion_name]},
        )
    return mapped


def proposals_of(names: Sequence[str], columns: Columns, options: Options) -> list[Proposal]:
    """What becomes of each field: as the mapping says, by its name, else as ``auto_map`` finds."""
    wanted = {folded(name): column for name, column in options.mapping.items()}
    _refuse_bad_mapping(wanted, names, columns)
    sure = {name: column for name in names if (column := wanted.get(folded(name)) or columns.named(name))}
    found = {name: Proposal(name, column, 1.0, _by(name, column, wanted)) for name, column in sure.items()}
    unsure = [name for name in names if name not in sure]
    if options.auto_map:
        free = {name: column for name, column in columns.known.items() if column not in sure.values()}
        found |= {proposal.header: proposal for proposal in propose(unsure, free, options.auto_map)}
    return [found.get(name) or Proposal(name, None, 0.0, None) for name in names]


def _by(name: str, column: str, wanted: Mapping[str, str]) -> str:
    if folded(name) in wanted:
        return "mapping"
    return "name" if folded(name) == column else "alias"


class Columns:
    """The columns that a record may fill, by the names that records have for them.

    Args:
        companions: What comes beside the table's rows, when that is wanted.
    """

    def __init__(self, table: Table, companions: Companions | None) -> None:
        self.table = table
        self.companions = companions
        self.companion_name = companions.name if companions else ""
        self._beside = companions.columns if companions else {}
        self._aliases = {folded(alias): column for alias, column in table.aliases.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Every column; those beside with their prefix."""
        return (*self.table.column_names, *self._beside)

    @property
    def known(self) -> dict[str, str]:
        """Every column by its name and by its aliases."""
        return {**{name: name for name in self.names}, **self.table.aliases}

    def named(self, name: str) -> str | None:
        """The column that a record calls so, in any case, or by an alias; ``None`` when it is no column's."""
        plain = folded(name)
        return plain if plain in self.names else self._aliases.get(plain)

    def column(self, name: str) -> Column:
        """One of ``names``; those beside are called with their prefix here too.

        Raises:
            LookupError: It is none of them.
        """
        column = self.table.column(name) or (self.companions.column(name) if self.companions else None)
        if column is None:
            raise LookupError(f"no column {name!r} in table {self.table.name!r}")
        return column

    def nearest(self, name: str) -> str:
        """A sentence with the column that looks most like ``name``; empty when none does."""
        return nearest(folded(name), self.names)

    def companions_among(self, found: Iterable[str]) -> set[str]:
        """Those of the columns that stand beside."""
        return {name for name in found if name in self._beside}

    def mapped(self, found: Mapping[str, int]) -> Mapped:
        """Columns and their fields; those beside only when the name is among them, without which there is no row."""
        own = {name: position for name, position in found.items() if name not in self._beside}
        beside = {name: position for name, position in found.items() if name in self._beside}
        if self.companion_name not in beside:
            beside = {}
        generates_key = bool(set(self.table.generated_key) & set(own))
        return Mapped(tuple(own), tuple(own.values()), generates_key, tuple(beside), tuple(beside.values()))

    def missing(self, mapped: Mapped) -> list[str]:
        """The columns that every row must bring and these do not."""
        return [
            column.name
            for column in self.table.columns
            if column.name not in mapped.columns
            and (column.required or column.name in self.table.key)
            and not (column.name in self.table.key and mapped.generates_key)
        ]


def folded(name: str) -> str:
    """A header as it is compared with others."""
    return name.strip().casefold()


def _refuse_unstorable(names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if not is_storable(name):
            raise JobError(
                f"header {storable(name)!r} (field {position + 1}) holds a NUL character or half of a surrogate pair",
                code="csv.header_invalid",
                hint="Give the field another name.",
            )


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        first = seen.setdefault(folded(name), position)
        if first != position:
            raise JobError(
                f"the header {name!r} stands twice, as field {first + 1} and as field {position + 1}",
                code="csv.header_duplicate",
            )


def _refuse_bad_mapping(wanted: Mapping[str, str], names: Sequence[str], columns: Columns) -> None:
    present = {folded(name) for name in names}
    for name, column in wanted.items():
        if column not in columns.names:
            raise JobError(
                f"mapping gives header {name!r} to {column!r}, which is no column of {columns.table.name!r}",
                code="csv.mapping_invalid",
                hint=nearest(column, columns.names),
            )
        if name not in present:
            raise JobError(
                f"mapping names the header {name!r}, which the file does not have",
                code="csv.header_missing",
                hint=nearest(name, [folded(other) for other in names]),
            )


def _unknown(unknown: Mapping[str, int], names: Sequence[str], columns: Columns) -> JobError:
    (name, position), *others = unknown.items()
    detail = f"header {name!r} (field {position + 1}) is no column of table {columns.table.name!r}"
    if others:
        also = ", ".join(repr(other) for other, _ in others[:_MOST_NAMED])
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        detail += f"; nor {'is' if len(others) == 1 else 'are'} {also}{more}"
    return JobError(
        detail,
        code="csv.header_unknown",
        hint=f"{_likely(name, unknown, names, columns)} Or set mapping or ignore_unknown in the config.".strip(),
        data={"header": name, "headers": [*unknown], "columns": list(columns.names)},
    )


def _likely(name: str, unknown: Mapping[str, int], names: Sequence[str], columns: Columns) -> str:
    """What the first unknown header is most likely a sign of; empty when nothing tells."""
    if len(names) == 1 and (delimiter := next((sign for sign in _DELIMITERS if sign in name), None)):
        return f"The header is a single field; is the delimiter {delimiter!r}?"
    if near := columns.nearest(name):
        return near
    if len(unknown) == len(names):
        return "None of the names is a column's; a CSV file without a header is imported with header: false."
    return ""


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that names the likest of what is known; empty when nothing is like it."""
    near = get_close_matches(name, known, n=1)
    return f"The nearest is {near[0]!r}." if near else ""


def _refuse_missing(mapped: Mapped, columns: Columns, *, named: bool) -> None:
    missing, table = columns.missing(mapped), columns.table
    if missing:
        from_columns = f", or one of {', '.join(table.generated_key)} to make it from" if table.generated_key else ""
        raise JobError(
            f"{'the header lacks' if named else 'the first records have no fields, so not'} {', '.join(missing)}, "
            f"which every row of table {table.name!r} must have{from_columns}",
            code="csv.header_missing",
            data={"missing": missing},
        )
