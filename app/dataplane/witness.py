"""A second opinion on an export: plain SQL that shares nothing with the query compiler or the export's stream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.tables import qualified, quoted


class _Digest:
    """What COPY writes into."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data)


def count_keys_between(session: Session, tenant: str, table: str, first: str, last: str) -> int:
    """Rows whose ``uuid`` is ``first`` to ``last``, both included."""
    statement = text(f"SELECT count(*) FROM {qualified(tenant, table)} WHERE uuid BETWEEN :first AND :last")
    return int(session.execute(statement, {"first": first, "last": last}).scalar_one())


def count_in_countries(session: Session, tenant: str, table: str, countries: Sequence[str], since: str) -> int:
    """Rows of these countries that were created at ``since`` (ISO 8601) or later."""
    statement = text(
        f"SELECT count(*) FROM {qualified(tenant, table)} "
        "WHERE country = ANY(:countries) AND created_at >= CAST(:since AS timestamptz)"
    )
    return int(session.execute(statement, {"countries": list(countries), "since": since}).scalar_one())


def csv_sha256_in_countries(
    session: Session, tenant: str, table: str, countries: Sequence[str], since: str, *, columns: Sequence[str]
) -> str:
    """SHA-256 (hex) of the same rows as a CSV file with a header, by ``uuid``."""
    cursor: Any = session.connection().connection.cursor()
    try:
        select = cursor.mogrify(
            f"SELECT {', '.join(quoted(name) for name in columns)} FROM {qualified(tenant, table)} "
            "WHERE country = ANY(%s) AND created_at >= CAST(%s AS timestamptz) ORDER BY uuid",
            (list(countries), since),
        ).decode()
        digest = _Digest()
        cursor.copy_expert(f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER true)", digest)
    finally:
        cursor.close()
    return digest.sha256.hexdigest()
