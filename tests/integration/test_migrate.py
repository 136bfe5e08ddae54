"""Rows go from one table to another and are proved to be the same there, whatever is killed meanwhile."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.dataplane import migrating, walking
from app.domain.errors import FenceLost, TransientError
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.migrate import JOB_TYPE
from tests.factories import a_request, a_service
from tests.integration.imports import Importing
from tests.integration.test_revert import reverted

OLD = Table(
    "old_things",
    (
        Column("region", ColumnType.TEXT),
        Column("id", ColumnType.INTEGER),
        Column("amount", ColumnType.NUMERIC),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("more", ColumnType.JSON),
    ),
    ("region", "id"),
)
NEW = Table(
    "things",
    (
        Column("number", ColumnType.BIGINT),
        Column("place", ColumnType.TEXT),
        Column("amount", ColumnType.NUMERIC),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("more", ColumnType.JSON),
        Column("late", ColumnType.TEXT),
    ),
    ("number", "place"),
)
MAPPING = {"region": "place", "id": "number", "amount": "amount", "tags": "tags", "more": "more"}
CONFIG = {"source": "old_things", "target": "things", "mapping": MAPPING}


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    Tables(sessions).declare("default", OLD)
    Tables(sessions).declare("default", NEW)
    imports = Importing(settings, sessions, objects)
    rows = "".join(f'{"eu" if n % 3 else "us"},{n},{n}.50,"{{a,NULL}}","{{""n"": 1.{n}}}"\n' for n in range(20))
    imports.load("region,id,amount,tags,more\n" + rows + "eu,99,,,null\n", table="old_things")
    return imports


def submitted(imports: Importing, **config: Any) -> UUID:
    return a_service(imports.sessions).submit(a_request(type=JOB_TYPE.name, config={**CONFIG, **config})).job.id


def run(context: RunContext) -> Result:
    result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(context.job.config))
    assert result is not None
    return result


def differences(imports: Importing) -> int:
    """Rows that stand in one of the tables only."""
    old = "SELECT region, id::bigint, amount, tags, more FROM t_default.old_things"
    new = "SELECT place, number, amount, tags, more FROM t_default.things"
    return len(imports.rows(f"(({old}) EXCEPT ({new})) UNION ALL (({new}) EXCEPT ({old}))"))


@pytest.mark.feature("S4-11")
@pytest.mark.parametrize("batch_rows", [7, 1_000])
def test_the_rows_are_in_the_other_table_with_equal_count_and_checksum(imports: Importing, batch_rows: int) -> None:
    result = run(imports.context(submitted(imports, batch_rows=batch_rows)))

    assert differences(imports) == 0
    assert result.data["books"] == {"read": 21, "loaded": 21, "updated": 0, "unchanged": 0}
    assert (result.data["rows"], result.data["checksum"] != "0") == (21, True)


def test_what_is_there_is_brought_up_to_date_and_equal_values_count_as_equal(imports: Importing) -> None:
    imports.load("number,place,amount,late\n1,eu,7,kept\n2,eu,2.5000,kept\n500,eu,1,kept\n", table="things")

    run(imports.context(submitted(imports)))
    again = run(imports.context(submitted(imports)))

    assert again.data["books"] == {"read": 21, "loaded": 0, "updated": 0, "unchanged": 21}
    assert imports.rows("SELECT amount::text, late FROM t_default.things WHERE late IS NOT NULL ORDER BY number") == [
        ("1.50", "kept"),
        ("2.50", "kept"),
        ("1", "kept"),
    ]


def test_a_query_says_which_rows_go(imports: Importing) -> None:
    result = run(imports.context(submitted(imports, vql={"where": {"keyword_match": {"must": {"region": "us"}}}})))

    assert result.data["rows"] == 7
    assert imports.rows("SELECT DISTINCT place FROM t_default.things") == [("us",)]


def test_a_migration_that_is_killed_goes_on_behind_its_last_batch(
    imports: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(imports, batch_rows=5)
    real, calls = migrating.jobs.advance, iter(range(2))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(migrating.jobs, "advance", dying)
        with pytest.raises(ConnectionResetError):
            run(imports.context(job_id))
    between = imports.rows("SELECT count(*) FROM t_default.things")

    result = run(imports.context(job_id))

    assert between == [(10,)]
    assert result.data["books"]["loaded"] == 21
    assert differences(imports) == 0


def test_rows_that_others_change_meanwhile_are_copied_again_by_the_next_attempt(
    imports: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(imports)
    real = walking.walk_on

    def meddled(*arguments: Any) -> Any:
        done = real(*arguments)
        imports.rows("UPDATE t_default.old_things SET amount = 77 WHERE id = 3 RETURNING id")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(migrating, "walk_on", meddled)
        with pytest.raises(TransientError) as raised:
            run(imports.context(job_id))

    run(imports.context(job_id))

    assert raised.value.code == "migrate.differs"
    assert differences(imports) == 0


def test_a_migration_can_be_reverted(imports: Importing) -> None:
    imports.load("number,place,amount\n1,eu,7\n", table="things")
    before = imports.rows("SELECT to_jsonb(t)::text FROM t_default.things AS t")
    context = imports.context(submitted(imports, revertible=True))
    Runs(imports.sessions).complete(context.job, run(context))

    books = reverted(imports, context.id)

    assert books == {"read": 21, "restored": 1, "deleted": 20}
    assert imports.rows("SELECT to_jsonb(t)::text FROM t_default.things AS t") == before


def test_a_worker_that_lost_the_job_copies_nothing(imports: Importing) -> None:
    job_id = submitted(imports)
    presumed_dead = imports.context(job_id)
    imports.claim(job_id)

    with pytest.raises(FenceLost):
        run(presumed_dead)

    assert imports.rows("SELECT count(*) FROM t_default.things") == [(0,)]
