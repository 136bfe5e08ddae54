"""Rows that come beside others: the company in a contact's line, by the columns that filters name it with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.dataplane.vql.catalogue import RELATIONS, Relation
from app.domain.errors import InvalidRequestError, Problem
from app.domain.tables import Column, Table


@dataclass(frozen=True, slots=True)
class Companions:
    """How a line names the row beside it.

    Args:
        relation: Whose column of ours holds the other row's key.
        name: The column, with its prefix, without whose value a line has no companion.
        columns: The other table's columns by the names that lines have for them, in the order of the relation.
    """

    relation: Relation
    name: str
    columns: dict[str, Column]

    @property
    def table(self) -> Table:
        """The other table."""
        return self.relation.table

    def column(self, header: str) -> Column | None:
        """The column behind a prefixed name, called by that name; ``None`` when there is none."""
        found = self.columns.get(header)
        return None if found is None else replace(found, name=header)


def companions_of(table: Table) -> Companions | None:
    """What comes beside the rows of ``table``; ``None`` when nothing does."""
    relation = RELATIONS.get(table.name)
    if relation is None:
        return None
    columns = {
        relation.prefix + name: column
        for name in relation.columns
        if (column := relation.table.column(name)) and table.column(relation.prefix + name) is None
    }
    return Companions(relation, relation.prefix + relation.table.generated_key[0], columns)


def check_companions(table: Table, *, upserts: bool, pointer: str) -> Companions:
    """What comes beside the rows of ``table``.

    Args:
        upserts: Whether rows are inserted and updated both; nothing else can be done with companions.
        pointer: Where the request asks for them.
    Raises:
        InvalidRequestError: ``companions.unsupported``.
    """
    found = companions_of(table)
    if found is None:
        detail = f"rows of {', '.join(sorted(RELATIONS))} have companions, those of {table.name!r} have none"
    elif not upserts:
        detail = "companions are upserted: expected mode upsert, got another"
    else:
        return found
    raise InvalidRequestError(detail, code="companions.unsupported", problems=(Problem(pointer, detail),))
