"""The bulk path: a job that fills an empty table puts its secondary indexes off, and gets them back whatever comes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.dataplane import bulk, indexes, postgres_errors
from app.domain.errors import FenceLost, InvalidRequestError, JobCancelled
from app.domain.job_types import Result
from app.domain.jobs import Origin
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence import table_claims
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.types import reconcile_indexes
from tests.factories import a_request, a_service
from tests.integration.imports import Importing

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("tags", ColumnType.TEXT_ARRAY)),
    ("id",),
    indexes=(Index(("name",)), Index(("tags",)), Index(("name",), trigram=True)),
)
NAMES = ["things_name_idx", "things_name_trgm", "things_tags_idx"]
BODY = "id,name,tags\n" + "".join(f'{number},name {number},"[""a""]"\n' for number in range(200))


class Bulk(Importing):
    """Imports to which every file is large."""

    def context(self, job_id: UUID, **settings: Any) -> RunContext:
        return super().context(job_id, **{"bulk_path_bytes": 1, **settings})

    def begin(self, body: str = BODY, **config: Any) -> RunContext:
        return self.context(self.submit(body, table="things", batch_rows=50, **config))

    def valid(self) -> list[str]:
        return sorted(Tables(self.sessions).describe("default", "things").existing.indexes)

    def claims(self) -> list[Any]:
        return [job_id for (job_id,) in self.rows("SELECT job_id FROM table_claims")]

    def followers(self) -> list[UUID]:
        return [job_id for (job_id,) in self.rows("SELECT id FROM jobs WHERE type = 'reconcile_indexes' ORDER BY id")]


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Bulk:
    Tables(sessions).declare("default", THINGS)
    return Bulk(settings, sessions, objects)


def reconcile(imports: Importing, job_id: UUID | None = None) -> Result:
    """What a worker does for a job that builds indexes, a given one or one that a person submitted."""
    kind = reconcile_indexes.JOB_TYPE
    if job_id is None:
        request = a_request(type=kind.name, config={"table": "things"})
        job_id = a_service(imports.sessions).submit(request).job.id
    context = imports.context(job_id)
    result = kind.run(context, kind.config.model_validate(context.job.config))
    assert result is not None
    Runs(imports.sessions).complete(context.job, result)
    return result


class Killed(BaseException):
    """The worker is gone."""


def killed_while_loading(imports: Bulk, monkeypatch: pytest.MonkeyPatch, **config: Any) -> RunContext:
    """An import that put the indexes off and was killed behind some batches."""
    context = imports.begin(lanes=1, **config)
    calls = iter(range(2))

    def check() -> None:
        if imports.rows("SELECT count(*) FROM t_default.things") != [(0,)] and next(calls, None) is None:
            raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(context, "check", check)
        with pytest.raises(Killed):
            imports.run(context)
    return context


def test_a_table_that_was_empty_has_its_indexes_when_the_import_is_done(imports: Bulk) -> None:
    context = imports.begin()

    result = imports.run(context)

    assert (result.data["indexes"], imports.valid()) == ("built", NAMES)
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(200,)]
    assert imports.claims() == []


def test_a_job_of_the_system_waits_for_the_import_and_finds_nothing_to_do(imports: Bulk) -> None:
    context = imports.begin()
    Runs(imports.sessions).complete(context.job, imports.run(context))
    (follower,) = imports.followers()

    waits = imports.rows("SELECT state, origin FROM jobs WHERE id = :id", id=follower)
    result = reconcile(imports, follower)

    assert waits == [("blocked", Origin.SYSTEM)]
    assert (result.data["built"], result.outcome) == ([], "empty")


@pytest.mark.parametrize(
    ("config", "changes"),
    [({"mode": "update"}, {}), ({}, {"bulk_path_bytes": 0}), ({}, {"bulk_path_bytes": 1_000_000})],
)
def test_a_job_that_gains_nothing_leaves_the_indexes(
    imports: Bulk, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    context = imports.context(imports.submit(BODY, table="things", **config), **changes)

    result = imports.run(context)

    assert "indexes" not in result.data
    assert imports.followers() == []


def test_a_table_with_rows_keeps_its_indexes(imports: Bulk) -> None:
    imports.rows("INSERT INTO t_default.things (id) VALUES (7) RETURNING id")

    result = imports.run(imports.begin())

    assert "indexes" not in result.data


def test_a_value_too_long_for_an_index_is_refused_as_ever(imports: Bulk) -> None:
    chosen = random.Random(3)
    long = "".join(chosen.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12_000))
    body = BODY + "".join(f"{number},{long if number == 230 else 'fine'},\n" for number in range(200, 260))

    result = imports.run(imports.begin(body))

    assert (result.data["books"]["loaded"], result.data["books"]["failed"]) == (259, 1)
    assert [(line, code) for line, code, *_ in imports.ledger()] == [(232, "db.54000")]
    assert imports.valid() == NAMES


def test_an_import_that_was_killed_goes_on_without_the_indexes_and_builds_them(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killed_while_loading(imports, monkeypatch)
    between = imports.valid(), imports.claims()

    result = imports.run(imports.context(killed.id))

    assert between == ([], [killed.id])
    assert result.data["books"]["loaded"] == 200
    assert (result.data["indexes"], imports.valid()) == ("built", NAMES)
    assert len(imports.followers()) == 1


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_the_indexes_of_an_import_that_never_got_to_its_end_are_built_by_another_job(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    killed = killed_while_loading(imports, monkeypatch)
    imports.rows("UPDATE jobs SET state = :end WHERE id = :id RETURNING id", end=end, id=killed.id)

    result = reconcile(imports, imports.followers()[0])

    assert sorted(result.data["built"]) == imports.valid() == NAMES
    assert imports.claims() == []


def test_a_table_that_is_being_filled_is_left_to_the_job_that_fills_it(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killed_while_loading(imports, monkeypatch)

    before = imports.followers()

    result = reconcile(imports)

    assert (result.data["filled_by"], imports.valid()) == (str(killed.id), [])
    assert len(imports.followers()) == len(before) + 2, "the one that was submitted, and the one that follows it"


def test_of_two_imports_that_fill_a_table_at_once_one_puts_the_indexes_off_and_both_load(imports: Bulk) -> None:
    bodies = ["id,name\n" + "".join(f"{n},{who}\n" for n in range(400)) for who in ("one", "two")]
    contexts = [imports.begin(body) for body in bodies]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(imports.run, contexts))

    assert sum("indexes" in result.data for result in results) <= 1
    assert [sum(result.data["books"][fate] for fate in ("loaded", "updated")) for result in results] == [400, 400]
    assert imports.rows("SELECT count(*), count(DISTINCT name) FROM t_default.things")[0][0] == 400
    assert imports.valid() == NAMES
    assert imports.claims() == []


def test_a_table_that_somebody_writes_to_is_not_waited_for(imports: Bulk) -> None:
    context = imports.begin()
    with imports.sessions.begin() as session:
        session.execute(text("LOCK TABLE t_default.things IN ROW EXCLUSIVE MODE"))

        result = imports.run(context)

    assert "indexes" not in result.data
    assert imports.valid() == NAMES


def test_a_worker_that_lost_the_job_drops_no_index(imports: Bulk) -> None:
    presumed_dead = imports.begin()
    imports.claim(presumed_dead.id)

    with pytest.raises(FenceLost):
        imports.run(presumed_dead)

    assert (imports.valid(), imports.claims(), imports.followers()) == (NAMES, [], [])


def test_a_claim_of_a_job_that_is_over_holds_nobody_up(imports: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = killed_while_loading(imports, monkeypatch)
    imports.rows("UPDATE jobs SET state = 'failed' WHERE id = :id RETURNING id", id=killed.id)
    imports.rows("DELETE FROM t_default.things RETURNING id")

    result = imports.run(imports.begin())

    assert (result.data["indexes"], imports.valid()) == ("built", NAMES)


def test_an_index_whose_building_broke_off_is_built_anew(imports: Bulk) -> None:
    imports.load(BODY, table="things", settings={"bulk_path_bytes": 0})
    index = "'t_default.things_name_idx'::regclass"
    imports.rows(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {index} RETURNING 1")

    result = reconcile(imports)

    assert result.data["built"] == ["things_name_idx"]
    assert imports.valid() == NAMES


def test_a_job_that_is_to_stop_stops_building_and_the_next_begins_anew(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killed_while_loading(imports, monkeypatch)
    imports.rows("UPDATE jobs SET state = 'cancelled' WHERE id = :id RETURNING id", id=killed.id)
    context = imports.context(imports.followers()[0])

    def stop() -> None:
        raise JobCancelled("user")

    monkeypatch.setattr(context, "tell", stop)
    with imports.sessions.begin() as writer:
        writer.execute(text("INSERT INTO t_default.things (id) VALUES (-1)"))
        with pytest.raises(JobCancelled):
            reconcile_indexes.run(context, reconcile_indexes.ReconcileIndexes(table="things"))
    between = imports.valid()

    result = reconcile(imports)

    assert between == []
    assert (sorted(result.data["built"]), imports.valid()) == (NAMES, NAMES)


def test_a_table_that_others_write_to_at_the_end_gets_its_indexes_afterwards(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = imports.begin(lanes=1)
    real = bulk.BulkPath.finish

    def finish(path: bulk.BulkPath) -> None:
        with imports.sessions.begin() as writer:
            writer.execute(text("INSERT INTO t_default.things (id) VALUES (-1)"))
            real(path)

    monkeypatch.setattr(bulk, "_LOCK_S", 0.01)
    monkeypatch.setattr(postgres_errors, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(bulk.BulkPath, "finish", finish)
    result = imports.run(context)
    Runs(imports.sessions).complete(context.job, result)
    between = imports.valid()

    reconcile(imports, imports.followers()[0])

    assert (result.data["indexes"], between) == ("pending", [])
    assert imports.valid() == NAMES


WIDER = replace(THINGS, indexes=(*THINGS.indexes, Index(("name",), words=True)), version=2)


def test_indexes_of_a_changed_declaration_are_built_by_a_job_while_others_write(imports: Bulk) -> None:
    imports.load(BODY, table="things", settings={"bulk_path_bytes": 0})
    with imports.sessions.begin() as writer:
        writer.execute(text("INSERT INTO t_default.things (id) VALUES (-1)"))
        Tables(imports.sessions).declare("default", WIDER)
        between = imports.valid()
        missing = Tables(imports.sessions).describe("default", "things").missing_indexes
    (builder,) = imports.followers()

    result = reconcile(imports, builder)

    assert (between, missing) == (NAMES, ["things_name_word"])
    assert result.data["built"] == missing
    assert imports.valid() == sorted([*NAMES, *missing])


def test_an_index_that_is_no_longer_wanted_when_it_is_built_does_not_stay(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports.load(BODY, table="things", settings={"bulk_path_bytes": 0})
    tables = Tables(imports.sessions)
    tables.declare("default", replace(WIDER, indexes=(*WIDER.indexes, Index(("id", "name")))))
    (builder,) = imports.followers()
    real, waits = indexes._build_one, iter([True])

    def build(*arguments: Any) -> None:
        if next(waits, False):
            tables.declare("default", replace(THINGS, version=3))
        real(*arguments)

    monkeypatch.setattr(indexes, "_build_one", build)
    result = reconcile(imports, builder)

    assert (result.data["built"], result.outcome) == ([], "empty")
    assert imports.valid() == NAMES


def test_a_declaration_that_changes_while_a_table_is_filled_waits_for_nobody(
    imports: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killed_while_loading(imports, monkeypatch)

    with imports.sessions.begin() as writer:
        writer.execute(text("INSERT INTO t_default.things (id) VALUES (-1)"))
        Tables(imports.sessions).declare("default", WIDER)
    between = imports.valid()
    imports.rows("UPDATE jobs SET state = 'failed' WHERE id = :id RETURNING id", id=killed.id)
    reconcile(imports, imports.followers()[-1])

    assert between == []
    assert imports.valid() == sorted([*NAMES, "things_name_word"])


def test_a_table_that_is_not_there_has_no_indexes_to_build(imports: Bulk) -> None:
    request = a_request(type="reconcile_indexes", config={"table": "nothings"})

    with pytest.raises(InvalidRequestError) as raised:
        a_service(imports.sessions).submit(request)

    assert raised.value.problems[0].pointer == "/config/table"


def test_a_dropped_table_leaves_no_claim(imports: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_while_loading(imports, monkeypatch)

    Tables(imports.sessions).drop("default", "things")

    with imports.sessions.begin() as session:
        assert table_claims.holder(session, "default", "things") is None
    assert imports.claims() == []
