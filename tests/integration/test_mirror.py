"""Rows of tables are documents of a search server too: all of them, whatever fails, and as new as the rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from app.dataplane.mirror import feeding, rebuilding
from app.dataplane.mirror import server as mirror_server
from app.domain.errors import InvalidRequestError, JobError, TransientError
from app.domain.job_types import JobType, Result
from app.domain.jobs import Outcome
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence import failed_records
from app.persistence.sessions import Sessions
from app.services.mirrors import Mirrors
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.types import delete_records_before, migrate, mirror_changes, rebuild_mirror
from tests.factories import a_request, a_service, stored
from tests.integration.imports import Importing
from tests.search_server import SearchDouble, search_server

THINGS = Table(
    "things",
    (
        Column("region", ColumnType.TEXT),
        Column("id", ColumnType.BIGINT),
        Column("name", ColumnType.TEXT, required=True),
        Column("amount", ColumnType.NUMERIC),
        Column("at", ColumnType.TIMESTAMPTZ),
        Column("more", ColumnType.JSON),
    ),
    ("region", "id"),
)
HEADER = "region,id,name,amount\n"
ALIAS = "haulier-default-things"


def lines(numbers: Any, name: str = "n") -> str:
    return "".join(f"eu,{n},{name}{n},{n}.50\n" for n in numbers)


@dataclass(kw_only=True)
class Mirroring(Importing):
    """An installation with a search server."""

    search: SearchDouble

    def load_things(self, rows: str, **config: Any) -> Result:
        return self.load(HEADER + rows, table="things", **config)

    def job(self, kind: JobType, config: dict[str, Any]) -> UUID:
        """A job of another type, past every check."""
        with self.sessions.begin() as session:
            return stored(session, a_request(type=kind.name, config=config)).id

    def run_job(self, kind: JobType, job_id: UUID) -> Result:
        context = self.context(job_id)
        result = kind.run(context, kind.config.model_validate(context.job.config))
        assert result is not None
        Runs(self.sessions).complete(context.job, result)
        return result

    def do(self, kind: JobType, **config: Any) -> Result:
        return self.run_job(kind, self.job(kind, {"table": "things", **config}))

    def is_same(self) -> bool:
        """Whether the documents are the rows."""
        rows = self.rows("SELECT json_build_array(region, id::text)::text, name, amount::float8 FROM t_default.things")
        documents = self.search.found(ALIAS)
        return sorted(rows) == sorted((one, found["name"], found["amount"]) for one, found in documents.items())

    def waiting(self) -> int:
        [(rows,)] = self.rows("SELECT coalesce(sum(rows), 0) FROM mirror_changes")
        return int(rows)


@pytest.fixture
def search() -> Iterator[SearchDouble]:
    with search_server() as double:
        yield double


@pytest.fixture
def imports(
    settings: Settings,
    sessions: Sessions,
    objects: ObjectStore,
    search: SearchDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> Mirroring:
    Tables(sessions).declare("default", THINGS)
    monkeypatch.setattr(mirror_server, "_FIRST_WAIT_S", 0.01)
    on = settings.model_copy(update={"mirror_url": search.url, "mirror_patience_s": 5.0})
    return Mirroring(on, sessions, objects, search=search)


@pytest.mark.feature("S4-08")
def test_what_an_import_accepts_is_in_both_stores_and_counted(imports: Mirroring) -> None:
    first = imports.load_things(lines(range(30)) + "eu,x,bad,1\n", batch_size=7)

    second = imports.load_things(lines(range(10)) + lines(range(5), "new") + lines(range(30, 33)), batch_size=4)

    assert first.data["books"] | {"loaded": 30, "failed": 1} == first.data["books"]
    assert first.data["mirror"] == {"things": {"index": ALIAS, "mirrored": 30, "refused": 0, "behind": 0}}
    accepted = second.data["books"]["loaded"] + second.data["books"]["updated"]
    assert second.data["mirror"]["things"]["mirrored"] == accepted
    assert len(imports.search.found(ALIAS)) == 33
    assert imports.is_same()


def test_what_other_jobs_and_requests_write_comes_to_the_mirror_by_a_job_of_the_system(imports: Mirroring) -> None:
    imports.load_things(lines(range(5)))
    imports.rows("UPDATE t_default.things SET name = 'changed', haulier_job_id = NULL WHERE id < 2 RETURNING id")
    imports.rows("DELETE FROM t_default.things WHERE id = 4 RETURNING id")
    work = Mirrors(imports.sessions, imports.settings).work()

    result = imports.do(mirror_changes.JOB_TYPE)

    assert work == [("default", "things", False)]
    assert (result.data["mirrored"], imports.waiting()) == (3, 0)
    assert imports.is_same()
    assert Mirrors(imports.sessions, imports.settings).work() == []


def test_rows_that_a_job_deletes_go_from_the_mirror(imports: Mirroring) -> None:
    imports.load_things(lines(range(5)))

    imports.do(delete_records_before.JOB_TYPE, before="2100-01-01T00:00:00Z")
    imports.do(mirror_changes.JOB_TYPE)

    assert imports.search.found(ALIAS) == {}


@pytest.mark.feature("S4-25")
def test_a_document_that_is_refused_stands_in_the_ledger_and_its_row_in_the_table(imports: Mirroring) -> None:
    job_id = imports.submit(HEADER + lines(range(3)) + "eu,9,odd,NaN\n" + "eu,y,bad,1\n", table="things")

    result = imports.run(imports.context(job_id))

    bad, refused = imports.ledger(job_id)
    [(message,)] = imports.rows("SELECT message FROM failed_records WHERE code = 'mirror.refused'")
    assert (bad[1], refused[1]) == ("value.bigint", "mirror.refused")
    assert '"name": "odd"' in refused[3]
    assert "document_parsing_exception: failed to parse field [amount]" in message
    assert result.data["mirror"]["things"] == {"index": ALIAS, "mirrored": 3, "refused": 1, "behind": 0}
    assert (result.outcome, result.data["books"]["failed"]) == (Outcome.PARTIAL, 1)
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(4,)]


def test_a_refused_document_is_not_replayed_as_a_line_of_the_file(imports: Mirroring) -> None:
    job_id = imports.submit(HEADER + "eu,9,odd,NaN\neu,8,odd,NaN\n", table="things")
    imports.run(imports.context(job_id))

    with imports.sessions.begin() as session:
        found = failed_records.of_job(session, "default", job_id)
        waiting, _ = failed_records.unresolved(session, "default", job_id)

    assert [one.stage for one in found] == ["mirror", "mirror"]
    assert waiting == 0


@pytest.mark.feature("S4-25")
def test_without_a_server_nothing_is_noted_and_switched_off_nothing_is_any_more(
    imports: Mirroring, settings: Settings, search: SearchDouble
) -> None:
    plain = Importing(settings, imports.sessions, imports.objects)
    result = plain.load(HEADER + lines(range(3)), table="things")
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'haulier_mirror%'"
    never = (imports.rows(triggers), imports.waiting(), len(search.server.seen))
    imports.load_things(lines(range(3, 5)))
    on = imports.rows(triggers)

    work = Mirrors(imports.sessions, settings).work()
    plain.load(HEADER + lines(range(5, 8)), table="things")

    assert "mirror" not in result.data
    assert (never, on) == (([(0,)], 0, 0), [(4,)])
    assert (work, imports.rows(triggers), imports.waiting()) == ([], [(0,)], 0)


@pytest.mark.feature("S4-27")
def test_postgres_goes_on_while_the_search_server_is_busy_with_the_first_batch(imports: Mirroring) -> None:
    committed = threading.Event()

    def until_the_last_batch_is_in() -> None:
        while not committed.is_set() and imports.rows("SELECT count(*) FROM import_batches WHERE batch = 9") == [(0,)]:
            committed.wait(0.01)
        committed.set()

    imports.search.before_bulk = until_the_last_batch_is_in

    result = imports.load_things(lines(range(50)), batch_size=5, parallel_batches=1)

    assert committed.is_set()
    assert result.data["mirror"]["things"]["mirrored"] == 50
    assert imports.is_same()


@pytest.mark.parametrize("faults", [["cut"], [429, "cut after", 502]])
def test_what_may_pass_is_waited_for_and_fails_no_row(imports: Mirroring, faults: list[int | str]) -> None:
    imports.load_things(lines(range(5)))
    imports.search.faults = list(faults)
    imports.search.put_off = {'["eu", "7"]'}

    result = imports.load_things(lines(range(3, 9), "new"))

    assert (result.outcome, imports.ledger()) == (Outcome.SUCCESS, [])
    assert result.data["mirror"]["things"] == {"index": ALIAS, "mirrored": 6, "refused": 0, "behind": 0}
    assert imports.is_same()


def test_a_mirror_that_stays_away_holds_no_import_back_and_is_brought_up_to_date_later(imports: Mirroring) -> None:
    imports.load_things(lines(range(2)))
    imports.search.faults = [503] * 50
    job_id = imports.submit(HEADER + lines(range(1, 6), "new"), table="things")
    context = imports.context(job_id, mirror_patience_s=0.0)
    result = imports.run(context)
    held = Mirrors(imports.sessions, imports.settings).work()
    Runs(imports.sessions).complete(context.job, result)
    imports.search.faults = []
    due = Mirrors(imports.sessions, imports.settings).work()

    imports.do(mirror_changes.JOB_TYPE)

    told = result.data["mirror"]["things"]
    assert (result.outcome, told["behind"], told["mirrored"]) == (Outcome.PARTIAL, 5, 0)
    assert "503" in told["reason"]
    assert (held, due) == ([], [("default", "things", False)])
    assert imports.is_same()


def test_an_import_that_fails_does_not_wait_for_a_mirror_that_is_away(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_server, "_FIRST_WAIT_S", 300.0)
    imports.search.faults = [503]

    with pytest.raises(JobError) as raised:
        imports.load_things("eu,x,bad,1\n", max_errors=0, on_budget="fail", settings={"mirror_patience_s": 600.0})

    assert raised.value.code == "import.error_budget"


def test_an_import_killed_behind_a_write_to_the_mirror_ends_with_the_same_counts(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = imports.submit(HEADER + lines(range(40)) + "eu,99,odd,NaN\n", table="things", batch_size=5)
    real, calls = feeding.mirrors.settle, iter(range(1))

    def dying(session: Any, changes: list[int]) -> int:
        rows = real(session, changes)
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(feeding.mirrors, "settle", dying)
        patched.setattr(feeding, "_MOST_ROWS", 5)
        with pytest.raises(ConnectionResetError):
            imports.run(imports.context(job_id))

    result = imports.run(imports.context(job_id))

    assert result.data["mirror"]["things"] == {"index": ALIAS, "mirrored": 40, "refused": 1, "behind": 0}
    assert [row[1] for row in imports.ledger(job_id)] == ["mirror.refused"]
    assert len(imports.search.found(ALIAS)) == 40


def test_what_was_read_earlier_never_replaces_what_was_read_later(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports.load_things(lines(range(2)))
    imports.rows("UPDATE t_default.things SET name = 'second', haulier_job_id = NULL WHERE id = 1 RETURNING id")
    real = feeding.Feed._read

    def overtaken(feed: feeding.Feed, of: UUID | None) -> Any:
        reading = real(feed, of)
        if reading is not None:
            monkeypatch.undo()
            imports.rows("UPDATE t_default.things SET name = 'third', haulier_job_id = NULL WHERE id = 1 RETURNING id")
            imports.rows("DELETE FROM t_default.things WHERE id = 0 RETURNING id")
            imports.do(mirror_changes.JOB_TYPE)
        return reading

    monkeypatch.setattr(feeding.Feed, "_read", overtaken)

    imports.do(mirror_changes.JOB_TYPE)

    assert [found["name"] for found in imports.search.found(ALIAS).values()] == ["third"]
    assert imports.is_same()


def test_an_index_built_anew_has_every_row_and_takes_the_place_of_the_other(
    imports: Mirroring, settings: Settings
) -> None:
    Importing(settings, imports.sessions, imports.objects).load(HEADER + lines(range(20)), table="things")
    imports.load_things(lines(range(20, 25)))
    before = len(imports.search.found(ALIAS))
    wanted = Mirrors(imports.sessions, imports.settings).work()

    result = imports.do(rebuild_mirror.JOB_TYPE)

    assert (before, wanted) == (5, [("default", "things", True)])
    assert (result.data["rows"], result.data["documents"], result.data["refused"]) == (25, 25, 0)
    assert imports.is_same()
    assert len(imports.search.indexes) == 1
    assert Mirrors(imports.sessions, imports.settings).work() == []


@pytest.mark.parametrize("killed_at", ["_keep", "_prove", "_take_over"])
def test_a_rebuild_that_is_killed_goes_on_and_misses_no_change_of_the_meantime(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    imports.load_things(lines(range(12)))
    job_id = imports.job(rebuild_mirror.JOB_TYPE, {"table": "things"})
    monkeypatch.setattr(rebuilding, "_PAGE_ROWS", 5)
    real, calls = getattr(rebuilding._Rebuild, killed_at), iter(range(1 if killed_at == "_keep" else 0))

    def dying(self: Any, *arguments: Any, **named: Any) -> Any:
        done = real(self, *arguments, **named)
        if next(calls, None) is None:
            raise ConnectionResetError("killed")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(rebuilding._Rebuild, killed_at, dying)
        with pytest.raises(ConnectionResetError):
            imports.run_job(rebuild_mirror.JOB_TYPE, job_id)
    imports.load_things(lines(range(3), "new") + lines(range(50, 53)))
    imports.rows("DELETE FROM t_default.things WHERE id IN (1, 4, 11) RETURNING id")

    result = imports.run_job(rebuild_mirror.JOB_TYPE, job_id)

    assert (result.data["documents"], len(imports.search.indexes)) == (12, 1)
    assert imports.is_same()


def test_a_refused_document_does_not_keep_an_index_from_being_built(imports: Mirroring) -> None:
    imports.load_things(lines(range(3)) + "eu,9,odd,NaN\n")

    result = imports.do(rebuild_mirror.JOB_TYPE)

    assert (result.data["rows"], result.data["documents"], result.data["refused"]) == (4, 3, 1)
    assert result.outcome is Outcome.PARTIAL


@pytest.mark.feature("S4-11")
def test_a_table_migrates_to_the_mirror_with_equal_count_and_checksum(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    plain = Importing(settings, imports.sessions, imports.objects)
    more = '"{""b"": [1, 2.50, 123456789012345678901234567890.5], ""a"": null}"'
    plain.load(f"region,id,name,amount,at,more\neu,1,é,1.500,2024-01-15T10:00:00.123456+02:00,{more}\n", table="things")
    plain.load(HEADER + lines(range(2, 9)) + f"{'x' * 900},1,long,1\n", table="things")
    job_id = imports.job(migrate.JOB_TYPE, {"source": "things", "to": "mirror"})
    real = rebuilding._Rebuild._prove

    def tampered(self: Any) -> Any:
        monkeypatch.undo()
        [index] = [one for name, one in imports.search.indexes.items() if name.endswith(job_id.hex)]
        one = next(iter(index.seen))
        index.seen[one] = index.seen[one].replace("1", "2")
        return real(self)

    monkeypatch.setattr(rebuilding._Rebuild, "_prove", tampered)
    with pytest.raises(TransientError) as raised:
        imports.run_job(migrate.JOB_TYPE, job_id)

    result = imports.run_job(migrate.JOB_TYPE, job_id)

    assert raised.value.code == "mirror.differs"
    assert (result.data["rows"], result.data["documents"], result.data["checksum"] != "0") == (9, 9, True)
    assert len(imports.search.found(ALIAS)) == 9


def test_two_jobs_do_not_build_one_index(imports: Mirroring) -> None:
    imports.load_things(lines(range(3)))
    first = imports.job(rebuild_mirror.JOB_TYPE, {"table": "things"})
    second = imports.job(rebuild_mirror.JOB_TYPE, {"table": "things"})
    other = rebuilding._Rebuild(imports.context(first), THINGS)
    other._begin()

    with pytest.raises(TransientError) as raised:
        imports.run_job(rebuild_mirror.JOB_TYPE, second)

    assert raised.value.code == "mirror.busy"


def test_an_index_whose_job_gave_up_is_removed(imports: Mirroring, monkeypatch: pytest.MonkeyPatch) -> None:
    imports.load_things(lines(range(3)) + "eu,9,odd,NaN\n")
    job_id = imports.job(rebuild_mirror.JOB_TYPE, {"table": "things"})
    monkeypatch.setattr(rebuilding, "_MOST_REFUSED", 0)
    with pytest.raises(JobError) as raised:
        imports.run_job(rebuild_mirror.JOB_TYPE, job_id)
    held = (len(imports.search.indexes), Mirrors(imports.sessions, imports.settings).work())
    imports.rows("UPDATE jobs SET state = 'failed' WHERE id = :id RETURNING id", id=job_id)
    due = Mirrors(imports.sessions, imports.settings).work()

    imports.do(mirror_changes.JOB_TYPE)

    assert raised.value.code == "mirror.too_many_refused"
    assert (held, due) == ((2, []), [("default", "things", False)])
    assert len(imports.search.indexes) == 1
    assert Mirrors(imports.sessions, imports.settings).work() == []


def test_an_index_that_somebody_removed_is_told_of_and_made_again_by_a_rebuild(imports: Mirroring) -> None:
    imports.load_things(lines(range(3)))
    imports.search.indexes.clear()
    imports.search.aliases.clear()
    lost = imports.load_things(lines(range(3, 5)))
    with pytest.raises(JobError) as raised:
        imports.run_job(mirror_changes.JOB_TYPE, imports.job(mirror_changes.JOB_TYPE, {"table": "things"}))

    imports.do(rebuild_mirror.JOB_TYPE)

    assert lost.data["mirror"]["things"]["behind"] == 2
    assert raised.value.code == "mirror.index_missing"
    assert imports.is_same()


def test_the_index_of_a_dropped_table_goes(imports: Mirroring) -> None:
    imports.load_things(lines(range(3)))
    Tables(imports.sessions).drop("default", "things")
    work = Mirrors(imports.sessions, imports.settings).work()

    imports.do(mirror_changes.JOB_TYPE)

    assert work == [("default", "things", False)]
    assert (imports.search.indexes, imports.rows("SELECT * FROM mirrors")) == ({}, [])


def test_a_table_declared_again_gets_an_index_of_its_own(imports: Mirroring) -> None:
    imports.load_things(lines(range(3)))
    Tables(imports.sessions).drop("default", "things")
    Tables(imports.sessions).declare("default", THINGS)

    imports.load_things(lines(range(2), "new"))

    assert len(imports.search.indexes) == 1
    assert imports.is_same()


def test_companies_beside_contacts_are_mirrored_too(imports: Mirroring) -> None:
    result = imports.load("first_name,linkedin_url,company_name\nAda,a,Acme\nBob,b,Acme\nCid,c,Bolt\n", companions=True)

    assert {name: one["mirrored"] for name, one in result.data["mirror"].items()} == {"contacts": 3, "companies": 2}
    assert len(imports.search.found("haulier-default-companies")) == 2


def test_beat_makes_one_job_of_the_system_for_each_table_that_is_behind(
    imports: Mirroring, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    from tasks import housekeeping

    Importing(settings, imports.sessions, imports.objects).load("first_name,linkedin_url\nAda,a\n")
    imports.load("first_name,linkedin_url\nBob,b\n")
    imports.load_things(lines(range(2)))
    imports.rows("DELETE FROM t_default.things WHERE id = 1 RETURNING id")
    monkeypatch.setattr(housekeeping, "settings", lambda: imports.settings)

    for _ in range(2):
        housekeeping.keep_mirrors()

    made = imports.rows("SELECT type, config ->> 'table', queue FROM jobs WHERE origin = 'system' ORDER BY id")
    assert made == [("rebuild_mirror", "contacts", "data"), ("mirror_changes", "things", "data")]


@pytest.mark.parametrize(
    ("kind", "config", "pointer"),
    [
        ("rebuild_mirror", {"table": "things"}, "/type"),
        ("rebuild_mirror", {"table": "none"}, "/config/table"),
        ("migrate", {"source": "things", "to": "mirror"}, "/config/to"),
        ("migrate", {"source": "things", "to": "mirror", "target": "things"}, "/config"),
        ("migrate", {"source": "things"}, "/config"),
    ],
)
def test_without_a_server_jobs_for_the_mirror_are_refused(
    imports: Mirroring, settings: Settings, kind: str, config: dict[str, Any], pointer: str
) -> None:
    service = a_service(imports.sessions, settings=settings)

    with pytest.raises(InvalidRequestError) as raised:
        service.submit(a_request(type=kind, config=config))

    assert [problem.pointer for problem in raised.value.problems] == [pointer]
