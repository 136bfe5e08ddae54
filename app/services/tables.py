"""Declared tables: made when first asked for, changed by a higher version, described and dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.dataplane import indexes
from app.dataplane import tables as real
from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.tables import BUILT_IN, Column, ColumnType, Index, Table, check_table
from app.persistence import mirrors, picker_values, table_claims
from app.persistence import tables as catalogue
from app.persistence.sessions import Sessions
from app.services import index_jobs

_FORMATS: Final = frozenset({"email"})
_NOT_FOR_KEYS: Final = frozenset({ColumnType.JSON, ColumnType.TEXT_ARRAY})


@dataclass(frozen=True, slots=True)
class Described:
    """A declaration and what stands in Postgres for it."""

    table: Table
    existing: real.Existing
    built_in: bool

    @property
    def missing_indexes(self) -> list[str]:
        """Names of those that are declared and cannot be used yet."""
        names = (index.name(self.table.name) for index in self.table.indexes)
        return sorted(name for name in names if name not in self.existing.indexes)


class Tables:
    """The tables of every tenant; ``contacts`` and ``companies`` exist for each, made at their first use."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def declare(self, tenant: str, table: Table) -> Table:
        """Make a table, or apply a higher version of its declaration; the version in force again is a no-op.

        Indexes that a changed declaration wants are built by a job of the system.

        Raises:
            InvalidRequestError: The declaration cannot be used; one problem per fault.
            ConflictError: ``table.built_in``; ``table.version_conflict``: the version in force is the same and differs,
                or is higher; ``table.change_unsupported``: more than new columns and other indexes.
        """
        if table.name in BUILT_IN:
            raise ConflictError(f"table {table.name!r} is built in and cannot be declared", code="table.built_in")
        check_table(table)
        _check_details(table)
        with self._sessions.begin() as session:
            return _apply(session, tenant, table)

    def get(self, tenant: str, name: str) -> Table:
        """The declaration in force; a built-in table is made, or brought to this release's version, when it must be.

        Raises:
            NotFoundError: ``table.not_found``; the message names the tables there are.
        """
        with self._sessions.begin() as session:
            found = catalogue.find(session, tenant, name)
            built_in = BUILT_IN.get(name)
            if built_in is not None and (found is None or found.version < built_in.version):
                return _apply(session, tenant, built_in)
            if found is None:
                known = ", ".join(sorted({*catalogue.names(session, tenant), *BUILT_IN}))
                raise NotFoundError(f"there is no table {name!r}; there are {known}", code="table.not_found")
            return found

    def will_write(self, tenant: str, table: Table, job_id: UUID, *, whole: bool = False) -> None:
        """Note that a job writes rows of a table; said before the first, and at every start of the job.

        Args:
            whole: The rows it writes do not all bear its id, or rows go.
        """
        if table.has_pickers:
            with self._sessions.begin() as session:
                picker_values.touch(session, tenant, table.name, job_id, whole=whole)

    def list(self, tenant: str) -> list[Table]:
        """Every table of the tenant by name, the built-in ones among them."""
        with self._sessions.begin() as session:
            names = sorted({*catalogue.names(session, tenant), *BUILT_IN})
        return [self.get(tenant, name) for name in names]

    def describe(self, tenant: str, name: str) -> Described:
        """The declaration with its columns, indexes and size in Postgres.

        Raises:
            NotFoundError: There is no such table.
        """
        table = self.get(tenant, name)
        with self._sessions.begin() as session:
            existing = real.describe(session, tenant, name)
        if existing is None:
            raise NotFoundError(f"table {name!r} was dropped just now", code="table.not_found")
        return Described(table, existing, name in BUILT_IN)

    def drop(self, tenant: str, name: str) -> None:
        """Drop a table and all its rows.

        Raises:
            ConflictError: ``table.built_in``.
            NotFoundError: There is no such table.
        """
        if name in BUILT_IN:
            raise ConflictError(f"table {name!r} is built in and cannot be dropped", code="table.built_in")
        with self._sessions.begin() as session:
            catalogue.lock(session, tenant, name)
            if not catalogue.remove(session, tenant, name):
                raise NotFoundError(f"there is no table {name!r}", code="table.not_found")
            table_claims.drop(session, tenant, name)
            real.drop(session, tenant, name)
            picker_values.forget(session, tenant, name, touches_too=True)
            mirrors.drop(session, tenant, name)


def _apply(session: Session, tenant: str, table: Table) -> Table:
    """Make or change the table under its lock; another process may have done so while we waited."""
    catalogue.lock_schema(session, tenant)
    catalogue.lock(session, tenant, table.name)
    before = catalogue.find(session, tenant, table.name)
    if before is None:
        real.check_index_names(session, tenant, table, catalogue.every(session, tenant))
        real.make(session, tenant, table)
    elif before == table:
        return before
    elif table.version > before.version:
        real.check_index_names(session, tenant, table, catalogue.every(session, tenant))
        real.change(session, tenant, before, table)
        if indexes.missing(session, tenant, table):
            index_jobs.build_soon(session, tenant, table.name)
    elif table.name in BUILT_IN:
        return before  # a newer release has been here
    else:
        raise ConflictError(
            f"table {table.name!r} is at version {before.version}; a changed declaration needs a higher one, "
            f"got {table.version}",
            code="table.version_conflict",
        )
    catalogue.put(session, tenant, table)
    if table.has_pickers:
        # Rows that were there before, and values of columns that were not filterable.
        picker_values.touch(session, tenant, table.name, None)
    return table


def _check_details(table: Table) -> None:
    """What ``check_table`` leaves open: types of the key, formats, indexes, aliases and the generated key."""
    problems = [*_column_problems(table.columns), *_key_problems(table), *_index_problems(table, table.indexes)]
    problems += [
        Problem(f"/aliases/{header}", f"alias of a column that is not declared: {name!r}")
        for header, name in table.aliases.items()
        if table.column(name) is None
    ]
    if table.version < 1:
        problems.append(Problem("/version", f"a version is 1 or more, got {table.version}"))
    if problems:
        raise InvalidRequestError("the table declaration cannot be used", problems=tuple(problems))


def _column_problems(columns: Iterable[Column]) -> list[Problem]:
    problems = []
    for position, column in enumerate(columns):
        at = f"/columns/{position}"
        if column.type is not ColumnType.TEXT and (column.max_length is not None or column.format is not None):
            problems.append(Problem(at, f"max_length and format are for text, {column.name!r} is {column.type.value}"))
        if column.max_length is not None and column.max_length < 1:
            problems.append(Problem(f"{at}/max_length", f"a length is 1 or more, got {column.max_length}"))
        if column.filterable and column.type is ColumnType.JSON:
            problems.append(Problem(f"{at}/filterable", "json has no values to pick"))
        if column.format is not None and column.format not in _FORMATS:
            problems.append(Problem(f"{at}/format", f"expected email, got {column.format!r}"))
    return problems


def _key_problems(table: Table) -> list[Problem]:
    problems = []
    for position, name in enumerate(table.key):
        column = table.column(name)
        if column is not None and column.type in _NOT_FOR_KEYS:
            problems.append(Problem(f"/key/{position}", f"a {column.type.value} column cannot be in a key"))
    if len(set(table.key)) != len(table.key):
        problems.append(Problem("/key", "a column stands twice in the key"))
    if table.generated_key:
        key = table.column(table.key[0])
        if len(table.key) != 1 or key is None or key.type is not ColumnType.UUID:
            problems.append(Problem("/generated_key", "only a key of one uuid column can be generated"))
        problems += [
            Problem(f"/generated_key/{position}", f"column {name!r} is not declared")
            for position, name in enumerate(table.generated_key)
            if table.column(name) is None or name in table.key
        ]
    return problems


def _index_problems(table: Table, indexes: Iterable[Index]) -> list[Problem]:
    problems = []
    seen: set[str] = set()
    for position, index in enumerate(indexes):
        kinds = {column.type for name in index.columns if (column := table.column(name))}
        if not index.columns:
            problems.append(Problem(f"/indexes/{position}/columns", "an index needs a column, got none"))
        if ColumnType.JSON in kinds or (ColumnType.TEXT_ARRAY in kinds and len(index.columns) > 1):
            problems.append(
                Problem(f"/indexes/{position}/columns", "json cannot be indexed, text[] only in an index of its own")
            )
        for kind, wanted in (("trigram", index.trigram), ("words", index.words)):
            if wanted and kinds - {ColumnType.TEXT}:
                problems.append(Problem(f"/indexes/{position}/{kind}", f"an index of {kind} is for text columns"))
        if index.trigram and index.words:
            problems.append(Problem(f"/indexes/{position}/words", "trigram and words are two indexes: declare both"))
        if index.name(table.name) in seen:
            problems.append(Problem(f"/indexes/{position}", "another index has the same name"))
        seen.add(index.name(table.name))
    return problems
