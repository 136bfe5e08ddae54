"""Before-images: what a row was before a job first wrote it, kept in the transaction that writes it.

A row that was not there has the image NULL. PostgreSQL 18 gives the old row with the new one; before it, the rows to be
changed are locked and kept first, and if another writer put one in between the lock and the merge, both are done again.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

from sqlalchemy.orm import Session

from app.dataplane.tables import quoted
from app.domain.tables import ColumnType, Table

_OLD_SINCE: Final = 18_00_00


class Keeping(Enum):
    """How a statement comes to know what rows were."""

    NOT = auto()
    OLD = auto()
    LOCKED = auto()


class Raced(Exception):  # noqa: N818 - it is a signal, caught where the rows are merged
    """A row was changed whose image was not kept."""


def keeping(session: Session) -> Keeping:
    """The way of this server."""
    driver: Any = session.connection().connection.driver_connection
    return Keeping.OLD if driver.server_version >= _OLD_SINCE else Keeping.LOCKED


def key_of(table: Table, alias: str) -> str:
    """A row's key as text, column by column."""
    return f"ARRAY[{', '.join(f'{alias}.{quoted(name)}::text' for name in table.key)}]"


def image_of(table: Table, alias: str) -> str:
    """A whole row, system columns too; JSON as its text, so that JSON's null is no NULL."""
    texts = [
        f" || jsonb_build_object('{column.name}', {alias}.{quoted(column.name)}::text)"
        for column in table.columns
        if column.type is ColumnType.JSON
    ]
    return f"(to_jsonb({alias}){''.join(texts)})"


def keep(table: Table, source: str, *, deleted: bool = False) -> str:
    """The statement that keeps ``key`` and ``image`` of a source; the first image of a job and key stays.

    Args:
        deleted: The job has deleted the rows.
    """
    return (
        f"INSERT INTO before_images (job_id, table_name, key, image, is_deleted) "
        f"SELECT CAST(:job AS uuid), '{table.name}', key, image, {deleted} FROM {source} ON CONFLICT DO NOTHING"
    )


def returned(table: Table, keeps: Keeping) -> str:
    """What a merge returns beside its counts."""
    if keeps is Keeping.NOT:
        return ""
    old = (
        f"CASE WHEN old.{quoted(table.key[0])} IS NOT NULL THEN {image_of(table, 'old')} END"
        if keeps is Keeping.OLD
        else "CAST(NULL AS jsonb)"
    )
    return f", {key_of(table, 'kept')} AS key, {old} AS image"


def kept(table: Table, keeps: Keeping) -> str:
    """The part of a merge that keeps what ``merged`` returned; rows that were locked are kept already."""
    if keeps is Keeping.NOT:
        return ""
    return f", images AS ({keep(table, 'merged' if keeps is Keeping.OLD else 'merged WHERE inserted')})"


def lock(table: Table, relation: str, source: str, differs: str) -> str:
    """Lock and keep the rows that a merge of ``source`` will change; counts them."""
    same_key = " AND ".join(f"kept.{quoted(name)} = fresh.{quoted(name)}" for name in table.key)
    return f"""
        WITH fresh AS MATERIALIZED ({source}),
        before AS MATERIALIZED (
            SELECT {key_of(table, "kept")} AS key, {image_of(table, "kept")} AS image
            FROM {relation} AS kept JOIN fresh ON {same_key} WHERE {differs}
            ORDER BY {", ".join(f"kept.{quoted(name)}" for name in table.key)} FOR UPDATE OF kept
        ),
        images AS ({keep(table, "before")})
        SELECT count(*) FROM before
        """
