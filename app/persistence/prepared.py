"""Statements that Postgres parses and plans once a connection, for those that every job passes through."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from psycopg2 import Error
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
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
        self._prepare = f"PREPARE {self._name} AS {numbered}"
        self._execute = f"EXECUTE {self._name}"
        if names:
            self._execute += f" ({', '.join(f'%({name})s' for name in names)})"

    def execute(self, session: Session, bound: Mapping[str, Any]) -> list[Any]:
        """Run it; the first time on a connection it is prepared. The rows, as named tuples.

        It goes to the driver past SQLAlchemy's compiler and results, which cost more than the statement does; errors
        come as SQLAlchemy's all the same, and a broken connection leaves the pool.
        """
        connection: Connection = session.connection() if isinstance(session, Session) else session
        pooled = connection.connection
        try:
            cursor = pooled.cursor(cursor_factory=NamedTupleCursor)
            if self._name not in pooled.info:
                cursor.execute(self._prepare)
                pooled.info[self._name] = True
            cursor.execute(self._execute, dict(bound))
            return list(cursor.fetchall())
        except Error as error:
            raise self._as_ours(connection, error) from error

    def _as_ours(self, connection: Connection, error: Error) -> DBAPIError:
        lost = connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
        ours: DBAPIError = DBAPIError.instance(  # an Error of the driver's gives no other type
            self._name,
            None,
            error,
            Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=connection.dialect,
        )
        if lost:
            connection.invalidate(error)
        return ours
