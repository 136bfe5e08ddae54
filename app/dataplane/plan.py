"""What an import does with a file's header: which field goes to which column, fixed when the job is first claimed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from app.dataplane.records import Encoding
from app.domain.errors import JobError
from app.domain.tables import Table


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
        compression: ``auto`` (by the file's first bytes), ``none`` or ``gzip``.
        delimiter: One ASCII character.
        batch_rows: Records per batch; ``lanes``: connections that write.
        ignore_unknown: Leave out fields whose header is no column, instead of refusing the file.
        max_errors: Refused rows that pause the job when exceeded; ``max_error_rate``: the same as a part, 0 to 1.
    """

    mapping: Mapping[str, str]
    encoding: str = "utf-8"
    compression: str = "auto"
    delimiter: str = ","
    mode: Mode = Mode.UPSERT
    batch_rows: int | None = None
    lanes: int | None = None
    ignore_unknown: bool = False
    max_errors: int | None = None
    max_error_rate: float | None = None

    def fingerprint(self, bucket: str, key: str, table: str) -> str:
        """A hash over all that decides how bytes become rows; another one is another load."""
        decisive = [bucket, key, table, dict(self.mapping), self.encoding, self.compression, self.delimiter, self.mode]
        return hashlib.sha256(json.dumps([*decisive, self.ignore_unknown], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load keeps to from its first claim to its end, whatever is killed or reconfigured meanwhile.

    Args:
        etag: Of the object; ``size_bytes`` as it is stored.
        fingerprint: ``Options.fingerprint`` of the job.
        gzipped: Whether the stored bytes are gzip.
        first_byte: Where the first record after the header begins, after decompression; ``first_line`` its line.
        width: Fields in the header.
        columns: The table's columns that the file fills, in file order; ``positions`` the field of each.
        generates_key: Rows without a key get the one made of ``Table.generated_key``.
        batch_rows: Records per batch; ``lanes`` and ``max_field_bytes`` as in the settings of then.
    """

    etag: str
    size_bytes: int
    fingerprint: str
    gzipped: bool
    encoding: Encoding
    first_byte: int
    first_line: int
    width: int
    columns: tuple[str, ...]
    positions: tuple[int, ...]
    generates_key: bool
    batch_rows: int
    lanes: int
    max_field_bytes: int

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
            "columns": tuple(kept["columns"]),
            "positions": tuple(kept["positions"]),
        }
    )


@dataclass(frozen=True, slots=True)
class Mapped:
    """A header against a table: as in ``Plan``."""

    columns: tuple[str, ...]
    positions: tuple[int, ...]
    generates_key: bool


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
    wanted = {_folded(name): column for name, column in options.mapping.items()}
    _refuse_bad_mapping(wanted, names, table)
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        column = _column_of(name, table, wanted)
        if column is None:
            if not options.ignore_unknown:
                raise _unknown(name, position, table)
            continue
        if column in found:
            raise JobError(
                f"the headers {names[found[column]]!r} and {name!r} both stand for column {column!r}",
                code="csv.header_duplicate",
            )
        found[column] = position
    generates_key = _check_complete(found, table)
    return Mapped(tuple(found), tuple(found.values()), generates_key)


def _folded(name: str) -> str:
    return name.strip().casefold()


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        first = seen.setdefault(_folded(name), position)
        if first != position:
            raise JobError(
                f"the header {name!r} stands twice, as field {first + 1} and as field {position + 1}",
                code="csv.header_duplicate",
            )


def _refuse_bad_mapping(wanted: Mapping[str, str], names: Sequence[str], table: Table) -> None:
    present = {_folded(name) for name in names}
    for name, column in wanted.items():
        if table.column(column) is None:
            raise JobError(
                f"mapping gives header {name!r} to {column!r}, which is no column of {table.name!r}",
                code="csv.mapping_invalid",
                hint=_nearest(column, table.column_names),
            )
        if name not in present:
            raise JobError(
                f"mapping names the header {name!r}, which the file does not have",
                code="csv.header_missing",
                hint=_nearest(name, [_folded(other) for other in names]),
            )


def _column_of(name: str, table: Table, wanted: Mapping[str, str]) -> str | None:
    folded = _folded(name)
    if folded in wanted:
        return wanted[folded]
    if table.column(folded) is not None:
        return folded
    return {_folded(alias): column for alias, column in table.aliases.items()}.get(folded)


def _unknown(name: str, position: int, table: Table) -> JobError:
    return JobError(
        f"header {name!r} (field {position + 1}) is no column of table {table.name!r}",
        code="csv.header_unknown",
        hint=f"{_nearest(_folded(name), table.column_names)} Or set mapping or ignore_unknown in the config.".strip(),
        data={"header": name, "columns": list(table.column_names)},
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"The nearest is {near[0]!r}." if near else ""


def _check_complete(found: Mapping[str, int], table: Table) -> bool:
    """Whether keys may have to be made; refuse a file that lacks what every row must bring."""
    generates_key = bool(table.generated_key)
    if generates_key and not set(table.generated_key) & set(found):
        generates_key = False
    missing = [
        column.name
        for column in table.columns
        if column.name not in found
        and (column.required or column.name in table.key)
        and not (column.name in table.key and generates_key)
    ]
    if missing:
        from_columns = f", or one of {', '.join(table.generated_key)} to make it from" if table.generated_key else ""
        raise JobError(
            f"the header lacks {', '.join(missing)}, which every row of table {table.name!r} must have{from_columns}",
            code="csv.header_missing",
            data={"missing": missing},
        )
    return generates_key
