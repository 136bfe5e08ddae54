"""Rows that are in a table already: transformed exactly once whatever is killed, refused by rules, judged alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.bootstrap import Services
from app.dataplane.merging import BY_INDEX, Target, merge_of
from app.dataplane.plan import Mode
from app.domain.errors import FenceLost, JobError, JobPaused
from app.domain.job_types import JobType, Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.types.transform import JOB_TYPE as TRANSFORM
from tasks.types.validate import JOB_TYPE as VALIDATE
from tests.factories import a_control, a_request, a_service
from tests.integration.imports import Importing
from tests.integration.test_import_csv import Killed, stop_after
from tests.integration.test_import_enrich import answering
from tests.integration.test_revert import run as reverted
from tests.integration.test_revert import submitted as revert_of
from tests.loopback import Loopback, servers

PEOPLE = Table(
    "people",
    (
        Column("region", ColumnType.TEXT),
        Column("id", ColumnType.INTEGER),
        Column("name", ColumnType.TEXT),
        Column("first", ColumnType.TEXT),
        Column("last", ColumnType.TEXT),
        Column("email", ColumnType.TEXT, format="email"),
        Column("age", ColumnType.INTEGER),
        Column("born", ColumnType.DATE),
        Column("at", ColumnType.TIMESTAMPTZ),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("more", ColumnType.JSON),
    ),
    ("region", "id"),
)
BODY = (
    "region,id,name,email,age,born,at,tags,more\n"
    'eu,1,ada LOVELACE,Ada@X.org,36,1815-12-10,2024-02-29T12:00:00.5Z,"{x,NULL}","{""a"": 1.50}"\n'
    "eu,2,Grace Hopper,grace@x.org,85,,,,\n"
    "eu,3,   ,ADA@x.org,,,,,\n"
    "eu,4,,eve@x.org,17,,,,\n"
    "us,1,tab\tand \\N,bob@x.org,200,,,,\n"
)
TRANSFORMS = [
    {"operation": "title_case", "field": "name"},
    {"operation": "trim", "field": "name"},
    {"operation": "split", "field": "name", "into": ["first", "last"]},
    {"operation": "lowercase", "field": "email"},
]
RULES = [{"rule": "range", "column": "age", "min": 18, "max": 120}]
NAMES = "SELECT region, id, name, first, last, email FROM t_default.people ORDER BY region, id"
ROWS = "SELECT to_jsonb(p)::text, xmin::text FROM t_default.people AS p ORDER BY region, id"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", PEOPLE)
    opened = settings.model_copy(update={"allow_private_hosts": ("127.0.0.0/8",)})
    return Importing(opened, sessions, objects, job_type=TRANSFORM)


def loaded(imports: Importing, body: str = BODY) -> None:
    imports.job_type = Importing.job_type
    imports.load(body, table="people")


def submitted(imports: Importing, job_type: JobType, **config: Any) -> UUID:
    imports.job_type = job_type
    request = a_request(type=job_type.name, config={"table": "people", **config})
    return a_service(imports.sessions).submit(request).job.id


def done(imports: Importing, job_type: JobType, **config: Any) -> Result:
    return imports.run(imports.context(submitted(imports, job_type, **config)))


def test_a_batch_of_a_large_table_is_written_by_the_index_of_its_key(imports: Importing) -> None:
    target = Target("default", PEOPLE, ("region", "id", "name"), Mode.UPDATE, None)
    people = "SELECT CAST('eu' AS text) AS region, n AS id, 'x' || n AS name FROM generate_series(1, {}) AS n"
    with imports.sessions.begin() as session:
        session.execute(text(f"INSERT INTO t_default.people (region, id, name) {people.format(20_000)}"))
        session.execute(text("ANALYZE t_default.people"))
        merge = merge_of(target, people.format(1_000))

        plain = _reads_whole_table(session, merge.sql)
        session.execute(text(BY_INDEX))
        by_index = _reads_whole_table(session, merge.sql)

    assert (merge.joins, plain, by_index) == (True, True, False)


def _reads_whole_table(session: Session, sql: str) -> bool:
    plan = session.execute(text(f"EXPLAIN {sql}"), {"job": None}).scalars()
    return any("Seq Scan on people" in line for line in plan)


@pytest.mark.feature("S2-29")
def test_rows_are_transformed_and_one_that_breaks_a_rule_stays_as_it_was(
    imports: Importing, web_services: Services
) -> None:
    loaded(imports)

    context = imports.context(submitted(imports, TRANSFORM, transforms=TRANSFORMS, rules=RULES, batch_rows=2))
    result = imports.run(context)

    assert imports.rows(NAMES) == [
        ("eu", 1, "Ada Lovelace", "Ada", "Lovelace", "ada@x.org"),
        ("eu", 2, "Grace Hopper", "Grace", "Hopper", "grace@x.org"),
        ("eu", 3, None, None, None, "ada@x.org"),
        ("eu", 4, None, None, None, "eve@x.org"),
        ("us", 1, "tab\tand \\N", None, None, "bob@x.org"),
    ]
    assert result.data["books"] == {"read": 5, "changed": 3, "unchanged": 0, "failed": 2}
    assert (result.outcome, result.kept["message"]) == ("partial", "changed 3 of 5 rows of people, 2 refused")
    assert imports.ledger(context.id) == [
        (4, "rule.range", "age", '{"table": "people", "key": {"region": "eu", "id": "4"}}'),
        (5, "rule.range", "age", '{"table": "people", "key": {"region": "us", "id": "1"}}'),
    ]
    assert [(one["stage"], one["code"], one["field"], one["count"]) for one in result.data["rejects"]] == [
        ("validate", "rule.range", "age", 2)
    ]
    assert imports.rows("SELECT rows_total, rows_done, error_count FROM jobs WHERE type = 'transform'") == [(5, 5, 2)]
    assert "".join(web_services.failed_records.as_csv("default", context.id)).count("rule.range") == 2


def test_every_type_comes_back_as_it_was_and_rows_without_a_change_are_not_written(imports: Importing) -> None:
    loaded(imports)
    before = imports.rows(ROWS)
    everything = [{"operation": "trim", "field": column.name} for column in PEOPLE.columns[2:]]

    result = done(
        imports, TRANSFORM, transforms=everything, vql={"where": {"range_query": {"must": {"id": {"lt": 3}}}}}
    )

    assert result.data["books"] == {"read": 3, "changed": 0, "unchanged": 3, "failed": 0}
    assert imports.rows(ROWS) == before
    assert done(imports, TRANSFORM, transforms=everything).data["books"]["changed"] == 1, "the name of blanks"


@pytest.mark.parametrize("commits", [1, 5])
@pytest.mark.parametrize("job_type", [TRANSFORM, VALIDATE])
def test_killed_behind_any_batch_it_ends_as_if_undisturbed(imports: Importing, job_type: JobType, commits: int) -> None:
    rows = "".join(f"eu,{n},person no {n % 9},p{n % 7}@x.org,{n}\n" for n in range(30))
    loaded(imports, "region,id,name,email,age\n" + rows)
    # Not the same when it is done twice: it shows that no row is.
    config: dict[str, Any] = {"transforms": [{"operation": "split", "field": "name", "into": ["last", "name"]}]}
    config |= {"rules": [{"rule": "range", "column": "age", "max": 22}], "batch_rows": 4}
    if job_type is VALIDATE:
        config["rules"].append({"rule": "unique", "columns": ["email", "name"]})
    job_id = submitted(imports, job_type, **config)
    killed = imports.context(job_id)
    stop_after(killed, commits=commits)

    with pytest.raises(Killed):
        imports.run(killed)
    result = imports.run(imports.context(job_id))

    read, changed, unchanged, failed = result.data["books"].values()
    assert (read, failed) == (30, 7) if job_type is TRANSFORM else (30, 14)
    assert len(imports.ledger(job_id)) == failed
    if job_type is TRANSFORM:
        named = "SELECT count(*) FROM t_default.people WHERE last = 'person' AND name = 'no ' || id % 9 AND id < 23"
        assert (changed, unchanged, imports.rows(named)) == (23, 0, [(23,)])


def test_a_transformation_is_taken_back(imports: Importing) -> None:
    loaded(imports)
    told = "SELECT to_jsonb(p)::text FROM t_default.people AS p ORDER BY region, id"
    before = imports.rows(told)
    context = imports.context(submitted(imports, TRANSFORM, transforms=TRANSFORMS, revertible=True, batch_rows=2))
    result = imports.run(context)
    Runs(imports.sessions).complete(context.job, result)
    between = imports.rows(told)

    back = reverted(imports.context(revert_of(imports, context.id)))

    assert result.data["books"]["changed"] == 4
    assert between != before
    assert (back.data["books"]["restored"], imports.rows(told)) == (4, before)


def test_rows_are_judged_and_nothing_is_written(imports: Importing) -> None:
    loaded(imports)
    imports.rows("UPDATE t_default.people SET email = 'nobody' WHERE id = 2 RETURNING 1")
    before = imports.rows(ROWS)
    rules = [
        *RULES,
        {"rule": "unique", "columns": ["email"]},
        {"rule": "required", "column": "name", "message": "who?"},
    ]

    result = done(imports, VALIDATE, rules=rules, transforms=[{"operation": "lowercase", "field": "email"}])

    assert imports.rows(ROWS) == before
    assert result.outcome == "partial"
    assert result.data["books"] == {"read": 5, "changed": 0, "unchanged": 1, "failed": 4}
    assert [(one["code"], one["field"], one["count"]) for one in result.data["rejects"]] == [
        ("rule.range", "age", 2),
        ("value.email", "email", 1),
        ("rule.unique", "email", 1),
    ]


def test_rows_without_a_fault_are_a_success_and_none_at_all_is_empty(imports: Importing) -> None:
    loaded(imports)

    good = done(imports, VALIDATE, rules=RULES, vql={"where": {"keyword_match": {"must": {"id": [2]}}}})
    none = done(imports, VALIDATE, rules=RULES, vql={"where": {"keyword_match": {"must": {"id": [9]}}}})

    assert (good.outcome, none.outcome) == ("success", "empty")


def test_columns_are_filled_by_a_service_that_is_asked_once_for_a_key(imports: Importing) -> None:
    loaded(imports, "region,id,name\n" + "".join(f"eu,{n},{'ada' if n % 2 else 'eve'}\n" for n in range(6)))
    held: list[Loopback] = []
    with servers() as start:
        held.append(start(answering(lambda: held[0])))
        imports.settings = imports.settings.model_copy(update={"outgoing_ports": frozenset({held[0].port})})
        spec = {"provider": "http", "key": ["name"], "fields": {"first": "firm.title"}}

        result = done(imports, TRANSFORM, enrich=[{**spec, "config": {"url": held[0].url()}}], batch_rows=2)

    assert len(held[0].seen) == 1
    assert result.data["books"] == {"read": 6, "changed": 3, "unchanged": 0, "failed": 3}
    assert imports.rows("SELECT DISTINCT first FROM t_default.people WHERE id % 2 = 1") == [("Analytical\tEngines",)]
    assert result.data["rejects"][0]["code"] == "enrich.failed"


def test_a_job_that_refuses_too_much_pauses_and_goes_on_under_mended_rules(imports: Importing) -> None:
    loaded(imports)
    config = {"transforms": TRANSFORMS, "rules": RULES, "batch_rows": 1, "max_errors": 0}
    job_id = submitted(imports, TRANSFORM, **config)
    context = imports.context(job_id)
    with pytest.raises(JobPaused) as raised:
        imports.run(context)
    Runs(imports.sessions).pause(context.job, raised.value)
    a_control(imports.sessions).resume("default", job_id, actor="tests")
    imports.rows("UPDATE jobs SET config = config || '{\"rules\": []}' WHERE id = :job RETURNING 1", job=job_id)

    result = imports.run(imports.context(job_id))

    assert result.data["books"] == {"read": 5, "changed": 4, "unchanged": 0, "failed": 1}


def test_a_job_that_is_to_be_revertible_from_its_middle_on_fails(imports: Importing) -> None:
    loaded(imports)
    context = imports.context(submitted(imports, TRANSFORM, transforms=TRANSFORMS, batch_rows=1))
    stop_after(context, commits=2)
    with pytest.raises(Killed):
        imports.run(context)
    imports.rows(
        "UPDATE jobs SET config = config || '{\"revertible\": true}' WHERE id = :job RETURNING 1", job=context.id
    )

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(context.id))

    assert raised.value.code == "import.config_changed"


def test_a_worker_that_lost_the_job_changes_nothing(imports: Importing) -> None:
    loaded(imports)
    before = imports.rows(ROWS)
    presumed_dead = imports.context(submitted(imports, TRANSFORM, transforms=TRANSFORMS))
    imports.claim(presumed_dead.id)

    with pytest.raises(FenceLost):
        imports.run(presumed_dead)

    assert imports.rows(ROWS) == before
