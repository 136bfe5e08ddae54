"""What every job type that walks over the rows of a table takes and checks alike."""

from __future__ import annotations

from typing import Any, Final

from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.model import Query
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, Problem
from app.domain.tables import COMPANIES, Table
from app.services.tables import Tables

ONLY: Final = "where"


def conditions(table: Table, vql: dict[str, Any]) -> Query:
    """Which rows are meant.

    Raises:
        InvalidRequestError: The query is none, or says more than conditions.
    """
    others = sorted(vql.keys() - {ONLY})
    if others:
        raise InvalidRequestError(
            "which rows are meant is said by conditions alone",
            code="vql.invalid",
            problems=tuple(Problem(f"/config/vql/{name}", f"expected nothing beside {ONLY}") for name in others),
        )
    return parse(vql, Catalogue(table), pointer="/config/vql")


def make_related(tables: Tables, tenant: str, query: Query) -> None:
    """Make what the query looks at beside its table: built-in tables are made at their first use, which this is."""
    if query.uses_relation:
        tables.get(tenant, COMPANIES.name)
