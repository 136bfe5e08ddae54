"""What jobs on whole tables refuse: deletions that could mean other rows, migrations that would lose something."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobType, Registry
from app.domain.tables import Column, ColumnType, Table, holds
from tasks.types import delete_records_before, migrate, transform, validate

OLD = Table(
    "old",
    (
        Column("region", ColumnType.TEXT),
        Column("id", ColumnType.INTEGER),
        Column("amount", ColumnType.NUMERIC),
        Column("at", ColumnType.TIMESTAMPTZ),
        Column("more", ColumnType.JSON),
    ),
    ("region", "id"),
)
NEW = Table(
    "new",
    (
        Column("number", ColumnType.BIGINT),
        Column("place", ColumnType.TEXT),
        Column("amount", ColumnType.NUMERIC),
        Column("more", ColumnType.JSON),
        Column("late", ColumnType.TEXT),
    ),
    ("number", "place"),
)
MAPPING = {"region": "place", "id": "number", "amount": "amount", "more": "more"}
BEFORE = "2024-01-15T00:00:00Z"


class Tenant:
    """Has two tables."""

    tenant = "default"

    def table(self, name: str, *, pointer: str) -> Table:
        found = {"old": OLD, "new": NEW}.get(name)
        if found is None:
            raise InvalidRequestError("no table", problems=(Problem(pointer, "no table"),))
        return found


def refused(job_type: JobType, config: dict[str, Any]) -> list[str]:
    """Where a config is at fault."""
    tenant: Any = Tenant()
    assert job_type.check is not None
    with pytest.raises(InvalidRequestError) as raised:
        job_type.check(tenant, Registry({}).parse(job_type, config))
    return [problem.pointer for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"table": "none", "before": BEFORE}, "/config/table"),
        ({"table": "old"}, "/config"),
        ({"table": "old", "vql": {"where": {}}}, "/config"),
        ({"table": "old", "before": "2024-01-15T00:00:00"}, "/config/before"),
        ({"table": "old", "before": BEFORE, "column": "region"}, "/config/column"),
        ({"table": "old", "before": BEFORE, "column": "haulier_job_id"}, "/config/column"),
        ({"table": "old", "before": BEFORE, "vql": {"limit": 3}}, "/config/vql/limit"),
        (
            {"table": "old", "vql": {"where": {"keyword_match": {"must": {"nobody": 1}}}}},
            "/config/vql/where/keyword_match/must/nobody",
        ),
    ],
)
def test_a_deletion_that_could_mean_other_rows_is_refused(config: dict[str, Any], pointer: str) -> None:
    assert refused(delete_records_before.JOB_TYPE, config) == [pointer]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"target": "none"}, ["/config/target"]),
        ({"source": "none"}, ["/config/source"]),
        ({"target": "old", "mapping": {}}, ["/config/target"]),
        ({"mapping": {}}, ["/config/mapping"]),
        ({"mapping": {**MAPPING, "nobody": "late"}}, ["/config/mapping/nobody"]),
        ({"mapping": {**MAPPING, "amount": "nobody"}}, ["/config/mapping/amount"]),
        (
            {"mapping": {**MAPPING, "amount": "more", "more": "late"}},
            ["/config/mapping/amount", "/config/mapping/more"],
        ),
        ({"mapping": {**MAPPING, "amount": "place"}}, ["/config/mapping"]),
        ({"mapping": {"id": "number", "amount": "amount"}}, ["/config/mapping"]),
        ({"vql": {"limit": 1}}, ["/config/vql/limit"]),
    ],
)
def test_a_migration_that_would_lose_something_is_refused(changes: dict[str, Any], pointers: list[str]) -> None:
    config = {"source": "old", "target": "new", "mapping": MAPPING, **changes}

    assert refused(migrate.JOB_TYPE, config) == pointers


TRIM = {"operation": "trim", "field": "region"}
ASK = {"provider": "http", "key": ["id"], "fields": ["amount"], "config": {"url": "https://example.com"}}


@pytest.mark.parametrize(
    ("config", "pointers"),
    [
        ({"table": "none"}, ["/config/table"]),
        ({"vql": {"limit": 1}}, ["/config/vql/limit"]),
        ({"transforms": []}, ["/config"]),
        ({"transforms": [TRIM]}, ["/config/transforms/0"]),
        ({"transforms": [{**TRIM, "field": "nobody"}]}, ["/config/transforms/0/field"]),
        (
            {"transforms": [{"operation": "split", "field": "nobody", "into": ["id", "none"]}]},
            ["/config/transforms/0/into", "/config/transforms/0/field", "/config/transforms/0"],
        ),
        ({"rules": [{"rule": "required", "column": "nobody"}]}, ["/config/rules/0"]),
        ({"rules": [{"rule": "unique", "columns": ["at"]}]}, ["/config/rules/0"]),
        ({"enrich": [{**ASK, "key": ["nobody"]}]}, ["/config/enrich/0/key"]),
        ({"enrich": [{**ASK, "fields": ["nobody"]}]}, ["/config/enrich/0/fields"]),
        ({"enrich": [{**ASK, "fields": ["id"]}]}, ["/config/enrich/0/fields"]),
        ({"enrich": [{**ASK, "config": {}}]}, ["/config/enrich/0/config"]),
    ],
)
def test_a_transformation_that_cannot_be_done_to_the_table_is_refused(
    config: dict[str, Any], pointers: list[str]
) -> None:
    fine = {"table": "old", "transforms": [{"operation": "default", "field": "amount", "value": "1"}]}

    assert refused(transform.JOB_TYPE, {**fine, **config}) == pointers


def test_rows_are_judged_by_columns_that_are_there_alone() -> None:
    rules = [{"rule": "unique", "columns": ["region", "at"]}, {"rule": "required", "column": "nobody"}]

    assert refused(validate.JOB_TYPE, {"table": "old", "transforms": [TRIM], "rules": rules}) == ["/config/rules/1"]


def test_a_wider_type_is_one_that_takes_every_value() -> None:
    wider = {(kind, other) for kind in ColumnType for other in ColumnType if kind is not other and holds(other, kind)}

    assert (ColumnType.BIGINT, ColumnType.DOUBLE) not in wider, "a double has 53 bits"
    assert (ColumnType.NUMERIC, ColumnType.TEXT) in wider
    assert not {(other, kind) for kind, other in wider} & wider
