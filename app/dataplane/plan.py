"""What an import does with a file's header: which field goes to which column, fixed when the job is first claimed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from app.dataplane.auto_map import AutoMap, Proposal, propose
from app.dataplane.budget import OnBudget
from app.dataplane.chunks import Encoding
from app.dataplane.companions import Companions, companions_of
from app.dataplane.compression import Compression
from app.dataplane.formats import Format
from app.dataplane.shaping import Shaping
from app.domain.errors import JobError
from app.domain.tables import Column, Table


class Mode(StrEnum):
    """What happens to a row whose key is, or is not, in the table already."""

    UPSERT = "upsert"
    """There: updated when it differs. Not there: inserted."""
    INSERT = "insert"
    """There: skipped. Not there: inserted."""
    UPDATE = "update"
    """There: updated when it differs. Not there: skipped."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a job wants its file read; ``None`` leaves it to the installation.

    Args:
        mapping: Header name to column name; goes before aliases.
        encoding: ``utf-8``, ``latin-1`` or ``utf-16``; a byte order mark of UTF-16 wins over ``utf-8``.
        compression: ``auto`` (by the file's first bytes), ``none``, ``gzip``, ``zstd`` or ``zip``.
        delimiter: One ASCII character, or ``auto``.
        file_format: ``csv``, ``ndjson``, ``json`` or ``auto`` (by the content).
        header: Whether the first record names the fields; or their names, when the file has none.
        skip_rows: Lines before the header, or the first record.
        null_tokens: Values that stand for NULL.
        max_file_bytes: A larger file, as it is stored, is not read.
        allowed_formats: Another format is not read; ``None`` allows every one.
        tells_file: The result says what was found by looking at the file.
        revertible: Keep what rows were before, so that the job can be reverted.
        auto_map: How headers that are no column find one; those that find none are left out. ``None``: they do not.
        batch_rows: Records per batch; ``lanes``: connections that write.
        batch_timeout_s: How long a lane's transaction may take; ``None`` as long as its statements do.
        ignore_unknown: Leave out fields whose header is no column, instead of refusing the file.
        companions: Take the columns of the row beside each too, a contact's company.
        max_errors: Refused rows that are too many when exceeded; ``max_error_rate``: the same as a part, 0 to 1.
        on_budget: What becomes of the job then.
        shaping: What is done to the records before their types are checked.
    """

    mapping: Mapping[str, str]
    encoding: str = "utf-8"
    compression: str = "auto"
    delimiter: str = ","
    mode: Mode = Mode.UPSERT
    batch_rows: int | None = None
    lanes: int | None = None
    batch_timeout_s: float | None = None
    ignore_unknown: bool = False
    companions: bool = False
    max_errors: int | None = None
    max_error_rate: float | None = None
    on_budget: OnBudget = OnBudget.PAUSE
    file_format: str = "csv"
    header: bool | tuple[str, ...] = True
    skip_rows: int = 0
    null_tokens: tuple[str, ...] = ()
    max_file_bytes: int | None = None
    allowed_formats: tuple[str, ...] | None = None
    tells_file: bool = False
    revertible: bool = False
    auto_map: AutoMap | None = None
    shaping: Shaping = field(default_factory=Shaping)

    def fingerprint(self, place: str, table: str) -> str:
        """A hash over all that decides how bytes become rows; another one is another load."""
        decisive: list[Any] = [place, table, dict(self.mapping), self.encoding, self.compression, self.delimiter]
        decisive += [self.mode, self.ignore_unknown, *(["companions"] if self.companions else [])]
        decisive += [self.file_format, self.header, self.skip_rows, self.null_tokens]
        decisive += [] if self.auto_map is None else [self.auto_map.model_dump()]
        decisive += [self.shaping.as_json()] if self.shaping else []
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Mapped:
    """Which field goes to which column.

    Args:
        columns: The table's columns that are filled, in the order of the fields; ``positions`` the field of each.
            Those behind the file's own are filled by its shaping.
        generates_key: Rows without a key get the one made of ``Table.generated_key``.
        companion_columns: Columns of the row beside each, with their prefix; ``companion_positions`` likewise.
    """

    columns: tuple[str, ...]
    positions: tuple[int, ...]
    generates_key: bool
    companion_columns: tuple[str, ...] = ()
    companion_positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load keeps to from its first claim to its end, whatever is killed or reconfigured meanwhile.

    Args:
        etag: Of the object; ``size_bytes`` as it is stored.
        fingerprint: ``Options.fingerprint`` of the job.
        compression: How the stored bytes are packed.
        file_format: How the records are written.
        delimiter: Of CSV.
        first_byte: Where the first record after the header begins, after decompression; ``first_line`` its line.
        names: The fields; of JSON the keys.
        mapped: What becomes of the fields.
        batch_rows: Records per batch; ``lanes`` and ``max_field_bytes`` as in the settings of then.
        seen: What was found by looking at the file, and how sure it is.
        spool: Bucket and key of our own copy, when the source itself cannot be read again at any place.
    """

    etag: str
    size_bytes: int
    fingerprint: str
    compression: Compression
    file_format: Format
    delimiter: str
    encoding: Encoding
    first_byte: int
    first_line: int
    names: tuple[str, ...]
    mapped: Mapped
    batch_rows: int
    lanes: int
    max_field_bytes: int
    seen: Mapping[str, Any] = field(default_factory=dict)
    spool: tuple[str, str] | None = None

    @property
    def width(self) -> int:
        """Fields of a record."""
        return len(self.names)

    @property
    def is_packed(self) -> bool:
        """Whether the bytes are others than the stored ones."""
        return self.compression is not Compression.NONE

    def to_checkpoint(self) -> dict[str, Any]:
        """The plan in JSON types."""
        return {"import": asdict(self)}


def from_checkpoint(checkpoint: Mapping[str, Any]) -> Plan:
    """The plan that ``to_checkpoint`` wrote."""
    kept = dict(checkpoint["import"])
    return Plan(
        **{
            **kept,
            "encoding": Encoding(kept["encoding"]),
            "compression": Compression(kept["compression"]),
            "file_format": Format(kept["file_format"]),
            "names": tuple(kept["names"]),
            "spool": kept["spool"] and tuple(kept["spool"]),
            "mapped": _mapped_of(kept["mapped"]),
        }
    )


def _mapped_of(kept: Mapping[str, Any]) -> Mapped:
    return Mapped(
        columns=tuple(kept["columns"]),
        positions=tuple(kept["positions"]),
        generates_key=kept["generates_key"],
        companion_columns=tuple(kept["companion_columns"]),
        companion_positions=tuple(kept["companion_positions"]),
    )


def map_header(header: Sequence[str], table: Table, options: Options, *, max_columns: int) -> Mapped:
    """Find the column of each field.

    Raises:
        JobError: ``csv.too_many_columns``, ``csv.header_duplicate``, ``csv.header_unknown``, ``csv.header_missing``.
    """
    if len(header) > max_columns:
        raise JobError(
            f"the header has {len(header)} fields, at most {max_columns} are taken", code="csv.too_many_columns"
        )
    names = [name.strip() for name in header]
    _refuse_duplicates(names)
    columns = Columns(table, companions_of(table) if options.companions else None)
    needed = {folded(name) for name in options.shaping.sources}
    found: dict[str, int] = {}
    for position, proposal in enumerate(proposals_of(names, columns, options)):
        name, column = proposal.header, proposal.column
        if column is None:
            if not (options.ignore_unknown or options.auto_map or folded(name) in needed):
                raise _unknown(name, position, columns)
            continue
        if column in found:
            raise JobError(
                f"the headers {names[found[column]]!r} and {name!r} both stand for column {column!r}",
                code="csv.header_duplicate",
            )
        found[column] = position
    for name in options.shaping.made:
        found.setdefault(name, max([len(names) - 1, *found.values()]) + 1)
    mapped = columns.mapped(found)
    _refuse_missing(mapped, columns)
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
        return _nearest(folded(name), self.names)

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
                hint=_nearest(column, columns.names),
            )
        if name not in present:
            raise JobError(
                f"mapping names the header {name!r}, which the file does not have",
                code="csv.header_missing",
                hint=_nearest(name, [folded(other) for other in names]),
            )


def _unknown(name: str, position: int, columns: Columns) -> JobError:
    return JobError(
        f"header {name!r} (field {position + 1}) is no column of table {columns.table.name!r}",
        code="csv.header_unknown",
        hint=f"{columns.nearest(name)} Or set mapping or ignore_unknown in the config.".strip(),
        data={"header": name, "columns": list(columns.names)},
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"The nearest is {near[0]!r}." if near else ""


def _refuse_missing(mapped: Mapped, columns: Columns) -> None:
    missing, table = columns.missing(mapped), columns.table
    if missing:
        from_columns = f", or one of {', '.join(table.generated_key)} to make it from" if table.generated_key else ""
        raise JobError(
            f"the header lacks {', '.join(missing)}, which every row of table {table.name!r} must have{from_columns}",
            code="csv.header_missing",
            data={"missing": missing},
        )
