"""A walk over a table by its key: pages of the rows that a query means, each behind the last row of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from app.dataplane.context import TableContext
from app.dataplane.postgres_errors import retried
from app.dataplane.tables import qualified, quoted
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.compiler import Statement, compile_select
from app.dataplane.vql.model import Query, total_order
from app.domain.jobs import Job
from app.domain.tables import Table
from app.persistence import jobs

Key = tuple[str, ...]
"""A row's key, column by column as text."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Which rows are walked over.

    Args:
        query: Its conditions.
        more: Another condition in SQL, on the table as ``m``.
    """

    tenant: str
    table: Table
    query: Query
    more: Callable[[Statement], str] | None = None

    @property
    def relation(self) -> str:
        """The table in SQL."""
        return qualified(self.tenant, self.table.name)

    def page(
        self, columns: Sequence[str], *, after: Key | None, upto: Key | None = None, limit: int | None = None
    ) -> Statement:
        """The SELECT of the rows behind ``after``, in the key's order.

        Args:
            columns: SQL, on the table as ``m``.
            upto: The last row.
            limit: Rows at most.
        """

        def more(statement: Statement) -> Iterable[str]:
            if self.more is not None:
                yield self.more(statement)
            if after is not None:
                yield f"({self._keys('m')}) > ({', '.join(self._bound(statement, after))})"
            if upto is not None:
                yield f"({self._keys('m')}) <= ({', '.join(self._bound(statement, upto))})"

        return compile_select(
            self.query,
            self.table.name,
            lambda table: qualified(self.tenant, table),
            columns=list(columns),
            order=total_order((), Catalogue(self.table).key_fields()) if limit or after else (),
            limit=limit,
            more=more,
        )

    def last(self, source: str) -> str:
        """SQL of the key of the last row of ``source``, which has the key's columns, as text; NULL when it has none."""
        texts = ", ".join(f"{quoted(name)}::text" for name in self.table.key)
        order = ", ".join(f"{quoted(name)} DESC" for name in self.table.key)
        return f"(SELECT ARRAY[{texts}] FROM {source} ORDER BY {order} LIMIT 1)"

    def _keys(self, alias: str) -> str:
        return ", ".join(f"{alias}.{quoted(name)}" for name in self.table.key)

    def _bound(self, statement: Statement, key: Key) -> list[str]:
        types = {column.name: column.type.sql for column in self.table.columns}
        return [statement.bind(value, types[name]) for name, value in zip(self.table.key, key, strict=True)]

    def key_columns(self) -> list[str]:
        """The key's columns on the table as ``m``."""
        return [f"m.{quoted(name)}" for name in self.table.key]


def same_key(table: Table, one: str, other: str) -> str:
    """Whether two rows have one key, in SQL."""
    return " AND ".join(f"{one}.{quoted(name)} = {other}.{quoted(name)}" for name in table.key)


def walk_on(context: TableContext, batch: Callable[[Key | None], Key | None]) -> Job:
    """Do batch after batch until one finds no rows; the job as it is then.

    Args:
        batch: Given the key to go on behind, does a batch and gives the key it ended at.
    """
    kept = (context.job.checkpoint or {}).get("walk")
    after: Key | None = tuple(kept) if kept else None
    while True:
        context.check()
        following = retried(partial(batch, after), again=context.check, what=f"the rows behind {after}")
        if following is None:
            break
        after = following
    with context.sessions.begin() as session:
        return jobs.get(session, context.job.tenant, context.id)
