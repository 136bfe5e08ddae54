"""What an import keeps to: how its file is read and what becomes of its records, fixed when it is first claimed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from app.dataplane.auto_map import AutoMap
from app.dataplane.budget import OnBudget, OnInvalid
from app.dataplane.chunks import Encoding
from app.dataplane.compression import Compression
from app.dataplane.formats import Format
from app.dataplane.shaping import Shaping


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
        sheet: Of a workbook, its name or its number from 1; ``fill_merged``: merged cells all have the first's value.
        header: Whether the first record names the fields; or their names, when the file has none.
        skip_rows: Lines before the header, or the first record.
        null_tokens: Values that stand for NULL.
        keeps_empty: Empty text is a text of its own; NULL is what a token says, or null in JSON.
        max_file_bytes: A larger file, as it is stored, is not read.
        allowed_formats: Another format is not read; ``None`` allows every one.
        tells_file: The result says what was found by looking at the file.
        revertible: Keep what rows were before, so that the job can be reverted.
        auto_map: How headers that are no column find one; those that find none are left out. ``None``: they do not.
        batch_rows: Records per batch, at most; ``lanes``: connections that write.
        batch_timeout_s: How long a lane's transaction may take; ``None`` as long as its statements do.
        ignore_unknown: Leave out fields whose header is no column, instead of refusing the file.
        companions: Take the columns of the row beside each too, a contact's company.
        max_errors: Refused rows that are too many when exceeded; ``max_error_rate``: the same as a part, 0 to 1.
        on_budget: What becomes of the job then.
        shaping: What is done to the records before their types are checked.
        on_invalid: What becomes of a row that is refused.
        scan: Have the file looked at for viruses before it is read.
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
    keeps_empty: bool = False
    on_invalid: OnInvalid = OnInvalid.QUARANTINE
    sheet: str | int = 1
    fill_merged: bool = False
    scan: bool = False

    def fingerprint(self, place: str, table: str) -> str:
        """A hash over all that decides how bytes become rows; another one is another load."""
        decisive = [self.records_fingerprint(place, table), dict(self.mapping), self.mode, self.ignore_unknown]
        decisive += [self.companions, self.null_tokens, self.keeps_empty, self.shaping.as_json()]
        return _hash([*decisive, self.auto_map and self.auto_map.model_dump()])

    def records_fingerprint(self, place: str, table: str) -> str:
        """A hash over what decides which bytes are a record of what, and over what a job is all through or not at all.

        The rest may change while a job is paused.
        """
        decisive = [place, table, self.encoding, self.compression, self.delimiter, self.revertible]
        return _hash([*decisive, self.file_format, self.header, self.skip_rows, self.sheet, self.fill_merged])


def _hash(decisive: Sequence[Any]) -> str:
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
class Sheet:
    """A sheet of a workbook, whose rows are read as lines of NDJSON.

    Args:
        sheet: Its name, or its number, counted from 1.
        names: Of its columns; ``None``: the first row has them.
        skip_rows: As in the options, like ``fill_merged``.
        reader: ``sheets.READER`` of the job's first claim; what another makes of it may be other lines.
    """

    sheet: str | int
    names: tuple[str, ...] | None
    skip_rows: int
    fill_merged: bool
    reader: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load keeps to from its first claim to its end, whatever is killed or reconfigured meanwhile.

    Args:
        etag: Of the object; ``size_bytes`` as it is stored.
        fingerprint: ``Options.fingerprint`` of the job; ``records`` its ``records_fingerprint``.
        compression: How the stored bytes are packed.
        file_format: How the records are written.
        delimiter: Of CSV.
        first_byte: Where the first record after the header begins, after decompression; ``first_line`` its line.
        names: The fields; of JSON the keys.
        mapped: What becomes of the fields.
        batch_rows: Records per batch, at most; ``batch_bytes``, ``lanes`` and ``max_field_bytes`` as in the settings of
            then.
        seen: What was found by looking at the file, and how sure it is.
        sheet: Which of a workbook is read; the format is that of its lines.
        spool: Bucket and key of our own copy, when the source itself cannot be read again at any place.
        null_tokens: As in the options of then, like ``ignore_unknown``, ``keeps_empty`` and ``shaping``.
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
    batch_bytes: int
    lanes: int
    max_field_bytes: int
    seen: Mapping[str, Any] = field(default_factory=dict)
    spool: tuple[str, str] | None = None
    records: str = ""
    null_tokens: tuple[str, ...] = ()
    ignore_unknown: bool = False
    keeps_empty: bool = False
    shaping: Shaping = field(default_factory=Shaping)
    sheet: Sheet | None = None

    @property
    def width(self) -> int:
        """Fields of a record."""
        return len(self.names)

    @property
    def is_packed(self) -> bool:
        """Whether the bytes are others than the stored ones."""
        return self.compression is not Compression.NONE or self.sheet is not None

    def to_checkpoint(self) -> dict[str, Any]:
        """The plan in JSON types."""
        return {"import": {**asdict(replace(self, shaping=Shaping())), "shaping": self.shaping.as_json()}}


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
            "null_tokens": tuple(kept["null_tokens"]),
            "mapped": _mapped_of(kept["mapped"]),
            "sheet": _sheet_of(kept["sheet"]),
            "shaping": Shaping.from_json(kept["shaping"]),
        }
    )


def _sheet_of(kept: Mapping[str, Any] | None) -> Sheet | None:
    return None if kept is None else Sheet(**{**kept, "names": kept["names"] and tuple(kept["names"])})


def _mapped_of(kept: Mapping[str, Any]) -> Mapped:
    return Mapped(
        columns=tuple(kept["columns"]),
        positions=tuple(kept["positions"]),
        generates_key=kept["generates_key"],
        companion_columns=tuple(kept["companion_columns"]),
        companion_positions=tuple(kept["companion_positions"]),
    )
