"""Tables that imports fill: their columns, types, key and indexes, and the two that every tenant has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.domain.errors import InvalidRequestError, Problem

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,58}")
SYSTEM_COLUMNS: Final = ("haulier_created_at", "haulier_updated_at", "haulier_job_id")
RESERVED_PREFIX: Final = "haulier_"


class ColumnType(StrEnum):
    """A column's type; the value is what the API says, ``sql`` what Postgres is told."""

    TEXT = "text"
    INTEGER = "integer"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMPTZ = "timestamptz"
    UUID = "uuid"
    JSON = "json"
    TEXT_ARRAY = "text[]"

    @property
    def sql(self) -> str:
        """The Postgres type."""
        return {"double": "double precision", "json": "jsonb"}.get(self.value, self.value)


_WIDER: Final = {
    ColumnType.INTEGER: {ColumnType.BIGINT, ColumnType.NUMERIC, ColumnType.DOUBLE, ColumnType.TEXT},
    ColumnType.BIGINT: {ColumnType.NUMERIC, ColumnType.TEXT},
    ColumnType.NUMERIC: {ColumnType.TEXT},
    ColumnType.UUID: {ColumnType.TEXT},
    ColumnType.BOOLEAN: {ColumnType.TEXT},
    ColumnType.DATE: {ColumnType.TEXT},
}


def holds(wider: ColumnType, kind: ColumnType) -> bool:
    """Whether a column of type ``wider`` takes every value of ``kind`` without loss."""
    return wider is kind or wider in _WIDER.get(kind, ())


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: Lower-case Postgres identifier, at most 59 characters.
        type: Its type.
        required: An empty value is a bad row.
        max_length: For ``text``: the most characters (code points), else a bad row.
        format: For ``text``: ``email`` asks for one ``@`` with something on both sides; ``None`` asks nothing.
        filterable: Its different values are kept for pickers.
    """

    name: str
    type: ColumnType
    required: bool = False
    max_length: int | None = None
    format: str | None = None
    filterable: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index that is wanted on a table; btree over ``columns``, GIN for arrays, ``trigram`` and ``words``.

    Args:
        trigram: For text: parts of words, and similar ones.
        words: For text: whole words, as VQL's searches split them.
    """

    columns: tuple[str, ...]
    trigram: bool = False
    words: bool = False

    def name(self, table: str) -> str:
        """The Postgres name, stable over runs."""
        kind = "trgm" if self.trigram else "word" if self.words else "idx"
        return f"{table}_{'_'.join(self.columns)}"[:58] + f"_{kind}"


@dataclass(frozen=True, slots=True)
class Table:
    """A declared table.

    Args:
        name: Lower-case Postgres identifier.
        columns: At least one.
        key: The columns whose values are unique and by which an import upserts; never empty.
        indexes: Secondary, non-unique indexes.
        generated_key: For a one-column ``uuid`` key: how a row that brings none gets its key (UUID5 over these
            columns), as document 004's product does; empty means the file must bring it.
        aliases: Header names taken for a column: ``{"phone": "mobile_phone"}``.
        version: Of the declaration; a higher one is applied over a lower.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    generated_key: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    version: int = 1

    def column(self, name: str) -> Column | None:
        """The column called ``name``, or ``None``."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def has_pickers(self) -> bool:
        """Whether some column is filterable."""
        return any(column.filterable for column in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The declared columns' names in order."""
        return tuple(column.name for column in self.columns)


def check_table(table: Table) -> None:
    """Refuse a declaration that Postgres or an import could not work with.

    Raises:
        InvalidRequestError: With one problem per fault, each with its pointer.
    """
    problems = []
    if not _NAME.fullmatch(table.name) or table.name.startswith(RESERVED_PREFIX):
        problems.append(Problem("/name", f"a table's name is lower-case letters, digits and _, got {table.name!r}"))
    if not table.columns:
        problems.append(Problem("/columns", "a table needs at least one column, got none"))
    seen: set[str] = set()
    for position, column in enumerate(table.columns):
        if not _NAME.fullmatch(column.name) or column.name.startswith(RESERVED_PREFIX):
            problems.append(
                Problem(
                    f"/columns/{position}/name",
                    f"a column's name is lower-case letters, digits and _ and does not start with {RESERVED_PREFIX!r}, "
                    f"got {column.name!r}",
                )
            )
        if column.name in seen:
            problems.append(Problem(f"/columns/{position}/name", f"column {column.name!r} is declared twice"))
        seen.add(column.name)
    if not table.key:
        problems.append(Problem("/key", "a table needs a unique key of one or more columns, got none"))
    for position, name in enumerate(table.key):
        if name not in seen:
            problems.append(Problem(f"/key/{position}", f"key column {name!r} is not declared"))
    for number, index in enumerate(table.indexes):
        problems.extend(
            Problem(f"/indexes/{number}/columns", f"index column {name!r} is not declared")
            for name in index.columns
            if name not in seen
        )
    if problems:
        raise InvalidRequestError("the table declaration cannot be used", problems=tuple(problems))


def _columns(kind: ColumnType, names: str) -> tuple[Column, ...]:
    """Columns of a type; ``*`` before a name makes it filterable."""
    return tuple(Column(name.removeprefix("*"), kind, filterable=name.startswith("*")) for name in names.split())


_T, _TS = ColumnType.TEXT, ColumnType.TIMESTAMPTZ

CONTACTS: Final = Table(
    name="contacts",
    columns=(
        Column("id", ColumnType.BIGINT),
        Column("uuid", ColumnType.UUID),
        *_columns(_T, "first_name last_name"),
        Column("company_id", ColumnType.UUID),
        Column("email", _T, max_length=320, format="email"),
        *_columns(_T, "*title"),
        *_columns(ColumnType.TEXT_ARRAY, "*departments"),
        *_columns(_T, "mobile_phone *email_status *seniority *city *state *country linkedin_url"),
        Column("created_at", _TS),
        *_columns(_T, "work_direct_phone home_phone other_phone facebook_url twitter_url website *stage"),
        Column("updated_at", _TS),
        Column("deleted_at", _TS),
    ),
    key=("uuid",),
    indexes=(Index(("email",)), Index(("company_id",)), Index(("country",))),
    generated_key=("first_name", "last_name", "linkedin_url"),
    aliases={"phone": "mobile_phone", "department": "departments"},
    version=2,
)
"""Document 004's contacts (docs/wire/connectra.md)."""

COMPANIES: Final = Table(
    name="companies",
    columns=(
        Column("id", ColumnType.BIGINT),
        Column("uuid", ColumnType.UUID),
        *_columns(_T, "name"),
        Column("employees_count", ColumnType.INTEGER),
        *_columns(ColumnType.TEXT_ARRAY, "*industries *keywords"),
        *_columns(_T, "address"),
        *_columns(ColumnType.BIGINT, "annual_revenue total_funding"),
        *_columns(ColumnType.TEXT_ARRAY, "*technologies"),
        *_columns(_T, "*city *state *country linkedin_url website normalized_domain facebook_url twitter_url"),
        *_columns(_T, "company_name_for_emails phone_number latest_funding"),
        Column("latest_funding_amount", ColumnType.BIGINT),
        *_columns(_TS, "last_raised_at created_at updated_at deleted_at"),
    ),
    key=("uuid",),
    indexes=(Index(("name",)), Index(("country",)), Index(("employees_count",))),
    generated_key=("name", "linkedin_url"),
    version=2,
)
"""Document 004's companies (docs/wire/connectra.md)."""

BUILT_IN: Final = {table.name: table for table in (CONTACTS, COMPANIES)}
