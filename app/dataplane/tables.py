"""The real Postgres tables behind declarations: a schema for each tenant, system columns, key and indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, InvalidRequestError
from app.domain.tables import Column, ColumnType, Index, Table, holds

_TENANT: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_PATIENCE: Final = "SET LOCAL lock_timeout = '5s'"
"""Whatever asks for a table waits behind one that waits to lock it."""
_SYSTEM_COLUMNS: Final = (
    "haulier_created_at timestamptz NOT NULL DEFAULT now()",
    "haulier_updated_at timestamptz NOT NULL DEFAULT now()",
    "haulier_job_id uuid",
)


@dataclass(frozen=True, slots=True)
class Existing:
    """What stands in Postgres for a declaration.

    Args:
        columns: Name to Postgres type, in order, system columns included.
        indexes: Names of the secondary indexes that are valid.
        estimated_rows: The planner's figure; 0 before the first ANALYZE of a small table.
        bytes_on_disk: Table, indexes and long values.
    """

    columns: dict[str, str]
    indexes: tuple[str, ...]
    estimated_rows: int
    bytes_on_disk: int


def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def schema_of(tenant: str) -> str:
    """The Postgres schema of a tenant's tables.

    Raises:
        InvalidRequestError: No tenant can be called so.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequestError(
            f"a tenant's name is a small letter, then up to 40 small letters, digits and _, got {tenant!r}",
            code="tenant.name_invalid",
        )
    return f"t_{tenant}"


def qualified(tenant: str, name: str) -> str:
    """The table in SQL: ``"t_default"."contacts"``."""
    return f"{quoted(schema_of(tenant))}.{quoted(name)}"


def make(session: Session, tenant: str, table: Table) -> None:
    """Create the table with its key and indexes; the caller holds the table's lock and has checked their names."""
    columns = [_column(column, column.name in table.key) for column in table.columns]
    key = ", ".join(quoted(name) for name in table.key)
    session.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema_of(tenant))}"))
    session.execute(
        text(
            f"CREATE TABLE {qualified(tenant, table.name)} "
            f"({', '.join((*columns, *_SYSTEM_COLUMNS))}, PRIMARY KEY ({key}))"
        )
    )
    for index in table.indexes:
        session.execute(text(index_sql(tenant, table, index)))


def _column(column: Column, in_key: bool) -> str:
    return f"{quoted(column.name)} {column.type.sql}{' NOT NULL' if in_key else ''}"


def check_index_names(session: Session, tenant: str, table: Table, others: Iterable[Table]) -> None:
    """Refuse an index that would be called like one of another table.

    Args:
        others: The tenant's tables, whose indexes need not be there yet.
    Raises:
        ConflictError: ``table.index_name_taken``.
    """
    holders = {index.name(other.name): other.name for other in others for index in other.indexes}
    for index in table.indexes:
        name = index.name(table.name)
        holder = _holder_of_index(session, tenant, name) or holders.get(name)
        if holder not in {None, table.name}:
            raise ConflictError(
                f"the index on {', '.join(index.columns)} of {table.name!r} would be called like one of table "
                f"{holder!r}",
                code="table.index_name_taken",
                hint="Give the table another name.",
            )


def index_sql(tenant: str, table: Table, index: Index) -> str:
    """The statement that builds an index."""
    arrays = any(_type_of(table, name) is ColumnType.TEXT_ARRAY for name in index.columns)
    gin = arrays or index.trigram or index.words
    return (
        f"CREATE INDEX {quoted(index.name(table.name))} ON {qualified(tenant, table.name)} "
        f"USING {'gin' if gin else 'btree'} ({', '.join(_indexed(index, name) for name in index.columns)})"
    )


def _indexed(index: Index, name: str) -> str:
    # The compiler of VQL spells words the same way, or the index serves nothing.
    if index.words:
        return f"to_tsvector('simple', {quoted(name)})"
    return quoted(name) + (" gin_trgm_ops" if index.trigram else "")


def _holder_of_index(session: Session, tenant: str, name: str) -> str | None:
    """The table that has an index of this name, or ``None``."""
    holder: str | None = session.execute(
        text("SELECT tablename FROM pg_indexes WHERE schemaname = :schema AND indexname = :name"),
        {"schema": schema_of(tenant), "name": name},
    ).scalar_one_or_none()
    return holder


def _type_of(table: Table, name: str) -> ColumnType | None:
    column = table.column(name)
    return column.type if column else None


def change(session: Session, tenant: str, before: Table, after: Table) -> None:
    """Bring the table from one declaration to a later one: new and wider columns; indexes that go are dropped.

    The caller holds its lock, and has new indexes built. Wider columns cost that the table is written anew, while
    nobody reads it.

    Raises:
        ConflictError: ``table.change_unsupported``: a column would go or its values might not fit, or the key would
            change. ``table.in_use``: the table could not be locked within seconds.
    """
    _check_change(before, after)
    changes = [change for column in after.columns if (change := _change_of(before.column(column.name), column))]
    if changes:
        _alone(session, after.name, f"ALTER TABLE {qualified(tenant, after.name)} {', '.join(changes)}")
    gone = {index.name(before.name) for index in before.indexes} - {index.name(after.name) for index in after.indexes}
    for name in sorted(gone):
        _alone(session, after.name, f"DROP INDEX IF EXISTS {quoted(schema_of(tenant))}.{quoted(name)}")


def _change_of(before: Column | None, column: Column) -> str | None:
    if before is None:
        return f"ADD COLUMN {_column(column, False)}"
    if before.type is not column.type:
        name = quoted(column.name)
        return f"ALTER COLUMN {name} TYPE {column.type.sql} USING {name}::{column.type.sql}"
    return None


def _alone(session: Session, name: str, statement: str) -> None:
    """Change a table, for which nobody else may be at it."""
    session.execute(text(_PATIENCE))
    try:
        session.execute(text(statement))
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != "55P03":
            raise
        raise ConflictError(f"table {name!r} is in use by others for too long", code="table.in_use") from error


def _check_change(before: Table, after: Table) -> None:
    if before.key != after.key:
        raise ConflictError(
            f"the key of {after.name!r} is {', '.join(before.key)} and cannot become {', '.join(after.key)}",
            code="table.change_unsupported",
            hint="Declare a new table and import into it.",
        )
    for column in before.columns:
        later = after.column(column.name)
        if later is None or not holds(later.type, column.type):
            became = "dropped" if later is None else f"made {later.type.value}"
            raise ConflictError(
                f"column {column.name!r} of {after.name!r} is {column.type.value} and cannot be {became}",
                code="table.change_unsupported",
                hint="A declaration may add columns, widen their types and change indexes.",
            )


def drop(session: Session, tenant: str, name: str) -> None:
    """Drop the table and its rows; one that is not there is fine."""
    session.execute(text(f"DROP TABLE IF EXISTS {qualified(tenant, name)}"))


def describe(session: Session, tenant: str, name: str) -> Existing | None:
    """What stands in Postgres under this name, or ``None``."""
    found = session.execute(
        text(
            """
            SELECT c.oid, greatest(c.reltuples, 0)::bigint AS estimated_rows,
                   pg_total_relation_size(c.oid) AS bytes_on_disk
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = :schema AND c.relname = :name AND c.relkind = 'r'
            """
        ),
        {"schema": schema_of(tenant), "name": name},
    ).one_or_none()
    if found is None:
        return None
    columns = session.execute(
        text(
            """
            SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
            WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum
            """
        ),
        {"oid": found.oid},
    )
    indexes = session.execute(
        text(
            """
            SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
            WHERE x.indrelid = :oid AND NOT x.indisprimary AND x.indisvalid ORDER BY i.relname
            """
        ),
        {"oid": found.oid},
    )
    return Existing(
        columns={row.attname: row.type for row in columns},
        indexes=tuple(row.relname for row in indexes),
        estimated_rows=found.estimated_rows,
        bytes_on_disk=found.bytes_on_disk,
    )
