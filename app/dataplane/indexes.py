"""Secondary indexes as the catalogue wants them: which are missing, how they are put off, and how they are built."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from app.dataplane.postgres_errors import retried
from app.dataplane.tables import index_sql, qualified, quoted, schema_of
from app.domain.job_types import JobContext
from app.domain.tables import Index, Table
from app.persistence import tables as catalogue
from app.persistence.sessions import Sessions

_LOOK_S: Final = 0.25
_MEMORY: Final = "256MB"
"""Of Postgres, for the sort of one index."""


class BuildContext(JobContext, Protocol):
    """What building indexes needs of the place it runs in."""

    @property
    def sessions(self) -> Sessions:
        """Sessions of the worker slot."""
        ...

    def tell(self) -> None:
        """Say that the job is alive where it has no number to show; raises when it is to stop."""
        ...


def missing(session: Session, tenant: str, table: Table) -> list[Index]:
    """The wanted indexes that cannot be used: there is none, or one whose building broke off."""
    rows = session.execute(
        text(
            """
            SELECT i.relname FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
            WHERE x.indrelid = to_regclass(:table) AND x.indisvalid
            """
        ),
        {"table": qualified(tenant, table.name)},
    )
    valid = set(rows.scalars())
    return [index for index in table.indexes if index.name(table.name) not in valid]


def drop(session: Session, tenant: str, table: Table) -> None:
    """Drop every declared secondary index; the key's stays."""
    names = ", ".join(f"{quoted(schema_of(tenant))}.{quoted(index.name(table.name))}" for index in table.indexes)
    session.execute(text(f"DROP INDEX IF EXISTS {names}"))


def build(context: BuildContext, tenant: str, name: str, *, lock_s: float | None = None) -> list[str]:
    """Build what a table lacks; the names. A job that is to stop stops this too.

    The declaration may change meanwhile: what it no longer wants is not left behind.

    Args:
        lock_s: Keep writers out of the table while an index is built, which is quicker and waits for nobody but those
            who write now, so long; ``None`` lets others read and write, and waits for every transaction that is open.
    Raises:
        JobError: Postgres refuses to build one.
        TransientError: Others are in the way; another attempt may do better.
    """
    built = []
    with _connection(context, tenant, name) as connection:
        table = _declared(context, connection, tenant, name)
        with context.sessions(bind=connection) as session:
            wanted = missing(session, tenant, table) if table else []
        for index in wanted:
            table = _declared(context, connection, tenant, name)
            if table is None or index not in table.indexes:
                continue
            called = index.name(name)
            place = f"{quoted(schema_of(tenant))}.{quoted(called)}"
            statement = index_sql(tenant, table, index)
            work = partial(_build_one, context, connection, place, statement, lock_s)
            retried(work, again=context.check, what=f"index {called}")
            table = _declared(context, connection, tenant, name)
            if table is None or index not in table.indexes:
                _run(context, connection, f"DROP INDEX CONCURRENTLY IF EXISTS {place}")
            else:
                built.append(called)
    return built


def _declared(context: BuildContext, connection: Connection, tenant: str, name: str) -> Table | None:
    with context.sessions(bind=connection) as session:
        return catalogue.find(session, tenant, name)


def _build_one(context: BuildContext, connection: Connection, place: str, statement: str, lock_s: float | None) -> None:
    """Build an index; what broke off of it goes first."""
    if lock_s is None:
        _run(context, connection, f"DROP INDEX CONCURRENTLY IF EXISTS {place}")
        _run(context, connection, statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY IF NOT EXISTS", 1))
        return
    # Sent as one, they are one transaction.
    locked = f"SET LOCAL lock_timeout = '{int(lock_s * 1000)}ms'; DROP INDEX IF EXISTS {place}; {statement}"
    _run(context, connection, locked)


def _run(context: BuildContext, connection: Connection, statement: str) -> None:
    """Execute a long statement, and cancel it when the job is to stop."""
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(connection.execute, text(statement))
        try:
            while not wait([work], timeout=_LOOK_S).done:
                context.tell()
        except BaseException:
            driver: Any = connection.connection.driver_connection
            driver.cancel()
            raise
        work.result()


@contextmanager
def _connection(context: BuildContext, tenant: str, name: str) -> Iterator[Connection]:
    """A connection outside of transactions, on which nobody else builds this table's indexes."""
    subject = {"subject": f"haulier.indexes {tenant} {name}"}
    with context.sessions.kw["bind"].connect() as shared:
        connection = shared.execution_options(isolation_level="AUTOCOMMIT")
        lock = text("SELECT pg_try_advisory_lock(hashtextextended(:subject, 0))")
        # Never waited for in Postgres: who builds waits there for every transaction that is open.
        while not connection.execute(lock, subject).scalar_one():
            context.tell()
            context.wait(_LOOK_S)
        try:
            # What is waited for is every transaction that is open, for which an hour may be too short.
            connection.execute(text(f"SET maintenance_work_mem = '{_MEMORY}'; SET lock_timeout = 0"))
            yield connection
        finally:
            if not connection.invalidated:
                connection.execute(text("RESET maintenance_work_mem; RESET lock_timeout"))
                connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:subject, 0))"), subject)
