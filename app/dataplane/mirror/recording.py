"""Triggers by which Postgres notes which rows of a table were written, in the transaction that writes them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.mirror.documents import key_texts
from app.dataplane.tables import qualified
from app.domain.tables import Table

_PATIENCE: Final = "SET LOCAL lock_timeout = '5s'"
_EVENTS: Final = {
    "INSERT": "REFERENCING NEW TABLE AS changed",
    "UPDATE": "REFERENCING NEW TABLE AS changed",
    "DELETE": "REFERENCING OLD TABLE AS changed",
    "TRUNCATE": "",
}


def begin(session: Session, tenant: str, table: Table) -> bool:
    """Note changes from this transaction on; whether the table has rows that were there before.

    Waits for those who are writing to the table; whoever writes after them has his rows noted.
    """
    relation = qualified(tenant, table.name)
    keys = ", ".join(key_texts(table)).replace("'", "''")
    session.execute(text(_PATIENCE))
    for event, transition in _EVENTS.items():
        session.execute(
            text(
                f"CREATE OR REPLACE TRIGGER haulier_mirror_{event.lower()} AFTER {event} ON {relation} {transition} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION note_mirror_changes('{tenant}', '{keys}')"
            )
        )
    return bool(session.execute(text(f"SELECT EXISTS (SELECT FROM {relation})")).scalar_one())


def end(session: Session, tenant: str, table: str) -> None:
    """Note no more changes."""
    session.execute(text(_PATIENCE))
    for event in _EVENTS:
        session.execute(text(f"DROP TRIGGER IF EXISTS haulier_mirror_{event.lower()} ON {qualified(tenant, table)}"))
