"""Rows as documents: their ids, their content and how the search server is to understand it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.mirror.server import Operation
from app.dataplane.tables import qualified, quoted
from app.domain.tables import SYSTEM_COLUMNS, ColumnType, Table

_LONGEST_ID_BYTES: Final = 500
"""Servers take 512."""
_WORDS: Final = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}}
_KINDS: Final[dict[ColumnType, dict[str, Any]]] = {
    ColumnType.TEXT: _WORDS,
    ColumnType.TEXT_ARRAY: _WORDS,
    ColumnType.INTEGER: {"type": "long"},
    ColumnType.BIGINT: {"type": "long"},
    ColumnType.NUMERIC: {"type": "double"},
    ColumnType.DOUBLE: {"type": "double"},
    ColumnType.BOOLEAN: {"type": "boolean"},
    ColumnType.DATE: {"type": "date"},
    ColumnType.TIMESTAMPTZ: {"type": "date"},
    ColumnType.UUID: {"type": "keyword"},
    ColumnType.JSON: {"type": "object", "enabled": False},
}
_SYSTEM: Final = ",".join(SYSTEM_COLUMNS)


def alias_of(prefix: str, tenant: str, table: str) -> str:
    """By what a table's documents are searched; names of tenants and tables hold no hyphen."""
    return f"{prefix}-{tenant}-{table}"


def mapping_of(table: Table) -> dict[str, Any]:
    """What an index is told of the table's columns; JSON is kept, but not searched."""
    return {"dynamic": False, "properties": {column.name: _KINDS[column.type] for column in table.columns}}


def key_texts(table: Table, alias: str = "") -> list[str]:
    """SQL of the key's columns as text."""
    return [f"{alias}{quoted(name)}::text" for name in table.key]


def id_of(texts: Sequence[str]) -> str:
    """SQL of a document's id: the key, as JSON when it has several columns; a hash of one that no id can be."""
    key = texts[0] if len(texts) == 1 else f"json_build_array({', '.join(texts)})::text"
    hashed = f"'sha256:' || encode(sha256(convert_to({key}, 'UTF8')), 'hex')"
    return f"CASE WHEN octet_length({key}) BETWEEN 1 AND {_LONGEST_ID_BYTES} THEN {key} ELSE {hashed} END"


def document_of(row: str) -> str:
    """SQL of a row's declared columns as JSON."""
    return f"(to_jsonb({row}) - CAST('{{{_SYSTEM}}}' AS text[]))::text"


def changed(session: Session, tenant: str, table: Table, changes: Sequence[int], version: int) -> list[Operation]:
    """What the rows of some changes are now; those that are gone are deletions."""
    types = {column.name: column.type.sql for column in table.columns}
    texts = [f"w.k{position}" for position in range(len(table.key))]
    wanted = ", ".join(f"key ->> {position} AS k{position}" for position in range(len(table.key)))
    same = " AND ".join(
        f"m.{quoted(name)} = CAST({k} AS {types[name]})" for name, k in zip(table.key, texts, strict=True)
    )
    rows = session.execute(
        text(
            f"""
            WITH w AS (
                SELECT {wanted}, count(*) AS times FROM mirror_changes AS c, json_array_elements(c.keys) AS key
                WHERE c.id = ANY(:changes) GROUP BY {", ".join(str(n + 1) for n in range(len(table.key)))}
            )
            SELECT {id_of(texts)} AS id, times,
                   CASE WHEN m.{quoted(table.key[0])} IS NOT NULL THEN {document_of("m")} END AS document
            FROM w LEFT JOIN {qualified(tenant, table.name)} AS m ON {same}
            """
        ),
        {"changes": list(changes)},
    )
    return [Operation(row.id, row.document, version, row.times) for row in rows]


def hash_of(document_id: str, content: Any) -> int:
    """64 bits of a document; ``content`` as ``read_json`` gives it."""
    said = json.dumps([document_id, content], sort_keys=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")
