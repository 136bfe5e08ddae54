"""The SQL of an export: the columns that were asked for and no page by its number."""

from __future__ import annotations

import pytest

from app.dataplane.query import export_statement
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.parser import parse
from app.domain.tables import CONTACTS


@pytest.mark.feature("S4-36", "S4-129")
def test_an_export_reads_only_its_columns_and_begins_behind_a_row_without_counting_up_to_it() -> None:
    after = "00000000-0000-0000-0000-000000000001"
    vql = {"select_columns": ["email", "country"], "search_after": [after], "limit": 500}

    statement = export_statement("acme", CONTACTS, parse(vql, Catalogue(CONTACTS)))

    named = [column.name for column in CONTACTS.columns if f'm."{column.name}"' in statement.sql]
    assert named == ["uuid", "email", "country"]
    assert "OFFSET" not in statement.sql
    assert after in statement.parameters.values()
