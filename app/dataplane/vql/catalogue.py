"""Which columns a query may name, and where they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from app.domain.tables import COMPANIES, CONTACTS, Column, ColumnType, Table


@dataclass(frozen=True, slots=True)
class Relation:
    """Another table whose columns filter this one's rows.

    Args:
        table: The other table.
        column: Ours, that holds the other's key.
        key: The other's key column; at most one row has a value.
        prefix: Put before the other's column names.
        columns: The other's columns that filters may name.
    """

    table: Table
    column: str
    key: str
    prefix: str
    columns: tuple[str, ...]


RELATIONS: Final[Mapping[str, Relation]] = {
    CONTACTS.name: Relation(
        COMPANIES,
        "company_id",
        "uuid",
        "company_",
        (
            "name",
            "employees_count",
            "industries",
            "keywords",
            "address",
            "annual_revenue",
            "total_funding",
            "technologies",
            "city",
            "state",
            "country",
            "linkedin_url",
            "website",
            "normalized_domain",
        ),
    )
}
"""By table; document 004's contacts are filtered by their company's columns."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column as a query names it.

    Args:
        name: In the query.
        column: In its table.
        nullable: Whether rows may lack a value.
        relation: ``None`` for the table's own columns.
    """

    name: str
    column: Column
    nullable: bool
    relation: Relation | None = None

    @property
    def type(self) -> ColumnType:
        """The column's type."""
        return self.column.type


class Catalogue:
    """The fields of one table, by the names queries use."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.relation = RELATIONS.get(table.name)
        self.own = {
            # A required column may still lack values in rows that are older than the requirement.
            column.name: Field(column.name, column, column.name not in table.key)
            for column in table.columns
        }
        self.filters = self.own | self._related()

    def _related(self) -> dict[str, Field]:
        if self.relation is None:
            return {}
        relation = self.relation
        named = {relation.prefix + name: relation.table.column(name) for name in relation.columns}
        return {
            name: Field(name, column, True, relation)
            for name, column in named.items()
            if column is not None and name not in self.own
        }

    def key_fields(self) -> tuple[Field, ...]:
        """The table's unique key, which makes every order total."""
        return tuple(self.own[name] for name in self.table.key)


def nearest(name: str, known: Mapping[str, object]) -> list[str]:
    """Up to three of ``known`` that look like ``name``, the likeliest first."""
    return get_close_matches(name.lower()[:100], list(known), n=3, cutoff=0.6)
