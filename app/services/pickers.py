"""Values for pickers: kept beside the tables, and gathered anew only from rows that were written since."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.dataplane import pickers
from app.domain.tables import Table
from app.persistence import picker_values
from app.persistence import tables as catalogue
from app.persistence.sessions import Sessions, limit_statements


class Pickers:
    """The use cases of filterable columns.

    Imports and upserts only note that they write (``picker_values.touch``), which costs them one small statement: the
    values are gathered by who asks for them first, or by housekeeping.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def values(
        self, tenant: str, table: Table, column: str, *, search: str | None, limit: int, timeout_s: float
    ) -> list[str]:
        """Values of a filterable column in order.

        Raises:
            DBAPIError: QueryCanceled: it took longer than ``timeout_s``.
        """
        with self._sessions.begin() as session:
            limit_statements(session, timeout_s)
            _gather(session, tenant, table)
            return picker_values.find(session, tenant, table.name, column, search=search, limit=limit)

    def gather_all(self) -> int:
        """Gather whatever is to be gathered of any table; how many tables had something."""
        with self._sessions.begin() as session:
            touched = picker_values.touched_tables(session)
        for tenant, name in touched:
            with self._sessions.begin() as session:
                table = catalogue.find(session, tenant, name)
                if table is None:
                    picker_values.forget(session, tenant, name, touches_too=True)
                else:
                    _gather(session, tenant, table)
        return len(touched)


def _gather(session: Session, tenant: str, table: Table) -> None:
    touched = picker_values.take_touched(session, tenant, table.name)
    if not touched:
        return
    if any(one.whole for one in touched):
        picker_values.forget(session, tenant, table.name)
        pickers.gather(session, tenant, table, None)
    else:
        pickers.gather(session, tenant, table, sorted({one.job_id for one in touched if one.job_id is not None}))
    # A job that is not over may write more rows after we looked.
    picker_values.settle(session, [one.number for one in touched if one.over])
