"""Connections to Postgres: one engine a process, sessions that are one transaction each."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from psycopg2.extensions import cursor
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker

Sessions = sessionmaker[Session]
_TWINS: Final[WeakKeyDictionary[Engine, Callable[[], Engine]]] = WeakKeyDictionary()
"""How an engine's like is made whose connections commit by themselves."""

_KEEPALIVE: Final = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
WORKER_LOCK_TIMEOUT_S: Final = 60
WORKER_IDLE_IN_TRANSACTION_S: Final = 300
SIMILAR_WORDS: Final = 0.4
"""pg_trgm's similarity from which a fuzzy search of VQL finds a word."""


def driver_url(url: str) -> URL:
    """``url`` with our driver; takes ``postgres://`` and ``postgresql://`` too."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    return parsed.set(drivername="postgresql+psycopg2")


# A plan that was made while a table was small must not be kept as one that reads all of it: neither by a scan, nor to
# join all of it with the few rows that are meant.
_BY_INDEX: Final = " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"


def open_engine(
    url: str,
    *,
    application_name: str,
    pool_size: int = 5,
    worker: bool = False,
    by_index: bool = False,
    pre_ping: bool = False,
    spent: Callable[[float], None] | None = None,
) -> Engine:
    """A pool of connections that name themselves ``application_name``.

    Args:
        url: A Postgres URL.
        application_name: Shown in ``pg_stat_activity``; a worker slot's is what the engine terminates it by.
        pool_size: Connections kept and the most open at once.
        worker: Add the limits that keep a stopped worker from holding locks for ever.
        by_index: Every statement looks rows up by index.
        pre_ping: Test a pooled connection before use (one more round trip).
        spent: Told the seconds that each statement takes, in the thread that waits for it.
    """
    # A plan without the scan that is forbidden below looks dear beyond measure, and compiling it takes a second.
    # Prepared statements are planned once a connection: to plan one takes longer than to run it.
    settings = [
        "-c TimeZone=UTC",
        "-c jit=off",
        "-c plan_cache_mode=force_generic_plan",
        f"-c pg_trgm.strict_word_similarity_threshold={SIMILAR_WORDS}",
    ]
    if worker:
        settings += [
            f"-c lock_timeout={WORKER_LOCK_TIMEOUT_S}s",
            f"-c idle_in_transaction_session_timeout={WORKER_IDLE_IN_TRANSACTION_S}s",
        ]
    arguments: dict[str, Any] = {
        "application_name": application_name[:63],
        "options": " ".join(settings),
        "connect_timeout": 5,
        **_KEEPALIVE,
    }
    if spent is not None:
        arguments["cursor_factory"] = _timed(spent)
    indexed = {**arguments, "options": arguments["options"] + _BY_INDEX}
    engine = _engine(driver_url(url), indexed if by_index else arguments, pool_size, pre_ping=pre_ping)
    _TWINS[engine] = lambda: _engine(
        driver_url(url), indexed, pool_size, pre_ping=pre_ping, isolation_level="AUTOCOMMIT"
    )
    return engine


def _engine(url: URL, arguments: dict[str, Any], pool_size: int, *, pre_ping: bool, **options: Any) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=pre_ping,
        connect_args=arguments,
        hide_parameters=True,
        json_deserializer=_from_json,
        **options,
    )
    event.listen(engine, "connect", _prune_safely)
    return engine


def prunes_safely(server_version: int) -> bool:
    """Whether a statement may leave out partitions while it runs; the version as libpq tells it.

    PostgreSQL 18 before 18.7 prunes through freed memory once a row that the statement waited for was changed
    (commit 1b5dd3a): the server has crashed so.
    """
    return not 180_000 <= server_version < 180_007


def _prune_safely(connection: Any, _record: Any) -> None:
    if not prunes_safely(connection.server_version):
        before, connection.autocommit = connection.autocommit, True
        with connection.cursor() as cursor:
            cursor.execute("SET enable_partition_pruning = off")
        connection.autocommit = before


def _from_json(value: str) -> Any:
    """What a column of JSON holds: of most jobs three are empty, and of nothing much to parse."""
    return {} if value == "{}" else json.loads(value)


def _timed(spent: Callable[[float], None]) -> type[cursor]:
    class TimedCursor(cursor):  # type: ignore[misc]  # psycopg2 has no types
        """Tells how long statements take."""

        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
            start = perf_counter()
            try:
                super().execute(query, vars)
            finally:
                spent(perf_counter() - start)

        def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
            start = perf_counter()
            try:
                super().copy_expert(sql, file, size)
            finally:
                spent(perf_counter() - start)

    return TimedCursor


def make_sessions(engine: Engine) -> Sessions:
    """Sessions on ``engine``: ``with sessions.begin() as session`` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)


def ping(session: Session) -> None:
    """Ask Postgres for an answer, whatever it is."""
    session.execute(text("SELECT 1"))


def limit_statements(session: Session, timeout_s: float) -> None:
    """Let no statement of this transaction take longer."""
    limit = f"{max(1, int(timeout_s * 1000))}ms"
    session.execute(text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": limit})


class SingleStatements:
    """Executors whose every statement is a transaction: one round trip instead of three, and no session to keep.

    What ``begin`` gives is a connection, which executes as a session does. It is one of its own, because switching one
    to and fro costs two round trips.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._engine = _TWINS[sessions.kw["bind"]]()

    def begin(self) -> AbstractContextManager[Session]:
        """An executor for one statement function."""
        return cast(AbstractContextManager[Session], self._engine.connect())

    def dispose(self) -> None:
        """Close the connections."""
        self._engine.dispose()
