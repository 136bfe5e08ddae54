"""Statements that Postgres parses and plans once a connection, for those that every job passes through."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, CursorResult
from sqlalchemy.orm import Session

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


class Prepared:
    """One statement, with ``:name`` for its parameters as ``text()`` has them.

    Planning a statement of several CTEs takes longer than running it. Parameters need a CAST where their type does not
    follow from their place.
    """

    def __init__(self, sql: str) -> None:
        names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found.group(1)) + 1}", sql)
        self._name = f"haulier_{hashlib.sha256(sql.encode()).hexdigest()[:16]}"
        # The driver reads % in a statement as the start of a parameter.
        self._prepare = f"PREPARE {self._name} AS {numbered}".replace("%", "%%")
        self._execute = f"EXECUTE {self._name}"
        if names:
            self._execute += f" ({', '.join(f'%({name})s' for name in names)})"

    def execute(self, session: Session, bound: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it; the first time on a connection it is prepared."""
        connection: Connection = session.connection() if isinstance(session, Session) else session
        if self._name not in connection.info:
            connection.exec_driver_sql(self._prepare)
            connection.info[self._name] = True
        return connection.exec_driver_sql(self._execute, dict(bound))
