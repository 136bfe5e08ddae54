"""Values for pickers: gathered once from the rows that were written, by whoever wrote them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence.sessions import Sessions
from app.services.pickers import Pickers
from config.settings import Settings
from tasks.types.delete_records_before import JOB_TYPE as DELETE
from tasks.types.insert_csv_file import JOB_TYPE as INSERT
from tests.conftest import BUCKET
from tests.factories import in_threads
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Any:
    worker = Worker(sessions, settings, objects, types=(INSERT, DELETE))
    worker.heart.start()
    yield worker
    worker.heart.stop()


def picked(client: Client, key: str, service: str = "contacts", **more: Any) -> list[str]:
    answer = client.post(f"/common/{service}/filters/data", {"filter_key": key, **more})
    values: list[str] = answer.get_json()["data"]
    return values


def load(worker: Worker, client: Client, objects: ObjectStore, *lines: str) -> str:
    rows = [f"{line.partition(',')[0]},{line}" for line in lines]
    body = "\n".join(["first_name,email,country,departments", *rows, ""]).encode()
    objects.put(ObjectRef(BUCKET, "uploads/in.csv"), body, content_type="text/csv")
    config = {"s3_key": "uploads/in.csv", "mapping": {}, "table": "contacts"}
    answer = client.post("/v1/jobs", {"type": "insert_csv_file", "config": config})
    attempt(worker)
    return str(answer.get_json()["id"])


def kept(sessions: Sessions) -> dict[str, list[str]]:
    with sessions.begin() as session:
        rows = session.execute(
            text("SELECT column_name AS name, array_agg(value ORDER BY value) AS found FROM picker_values GROUP BY 1")
        )
        return {row.name: row.found for row in rows}


def touches(sessions: Sessions) -> int:
    with sessions.begin() as session:
        count: int = session.execute(text("SELECT count(*) FROM picker_touches")).scalar_one()
    return count


@pytest.mark.feature("S4-26")
def test_the_values_of_an_import_are_kept_and_the_next_question_reads_no_rows(
    worker: Worker, member: Client, objects: ObjectStore, sessions: Sessions
) -> None:
    load(worker, member, objects, "a@b.c,DE,sales; it", "b@b.c,FR,it", "c@b.c,,")

    first = picked(member, "country"), picked(member, "departments")
    with sessions.begin() as session:
        session.execute(text("UPDATE t_default.contacts SET country = 'unseen'"))
    again = picked(member, "country")

    assert first == (["DE", "FR"], ["it", "sales"])
    assert again == ["DE", "FR"]
    assert kept(sessions)["country"] == ["DE", "FR"]
    assert touches(sessions) == 0


def test_a_later_import_adds_the_values_of_its_own_rows(
    worker: Worker, member: Client, objects: ObjectStore, sessions: Sessions
) -> None:
    load(worker, member, objects, "a@b.c,DE,it")
    picked(member, "country")
    with sessions.begin() as session:
        session.execute(text("UPDATE t_default.contacts SET country = 'unseen'"))

    load(worker, member, objects, "d@b.c,IT,it")

    assert picked(member, "country") == ["DE", "IT"]
    assert picked(member, "country", search_text="i") == ["IT"]


def test_rows_of_a_job_that_goes_on_are_looked_at_again(
    worker: Worker, member: Client, objects: ObjectStore, sessions: Sessions
) -> None:
    job = load(worker, member, objects, "a@b.c,DE,it")
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'running' WHERE id = CAST(:id AS uuid)"), {"id": job})
    # The table was made then too, and is read whole once.
    assert picked(member, "country") == ["DE"]
    assert touches(sessions) == 1

    with sessions.begin() as session:
        session.execute(text("UPDATE t_default.contacts SET country = 'FR'"))
        session.execute(text("UPDATE jobs SET state = 'failed' WHERE id = CAST(:id AS uuid)"), {"id": job})

    assert picked(member, "country") == ["DE", "FR"]
    assert touches(sessions) == 0


def test_an_upsert_has_the_whole_table_read_and_values_that_are_gone_go(member: Client, sessions: Sessions) -> None:
    upserted = member.post(
        "/v1/tables/contacts/records:upsert", {"rows": [{"email": "a@b.c", "linkedin_url": "x", "country": "DE"}]}
    )
    before = picked(member, "country")

    row = {"uuid": upserted.get_json()["uuids"][0], "country": "PT"}
    member.post("/v1/tables/contacts/records:upsert", {"rows": [row]})

    assert before == ["DE"]
    assert picked(member, "country") == ["PT"]


def test_values_whose_last_rows_were_deleted_by_a_job_go(
    worker: Worker, member: Client, objects: ObjectStore, sessions: Sessions
) -> None:
    load(worker, member, objects, "a@b.c,DE,it", "b@b.c,FR,it")
    before = picked(member, "country")
    gone = {"where": {"keyword_match": {"must": {"country": "FR"}}}}
    member.post("/v1/jobs", {"type": "delete_records_before", "config": {"table": "contacts", "vql": gone}})

    attempt(worker)

    assert before == ["DE", "FR"]
    assert picked(member, "country") == ["DE"]


def test_many_who_ask_at_once_get_the_same_values(
    worker: Worker, member: Client, objects: ObjectStore, sessions: Sessions, web_services: Services
) -> None:
    load(worker, member, objects, *(f"p{n}@b.c,C{n % 7},it; d{n % 5}" for n in range(200)))

    answers = in_threads(6, lambda: picked(member, "departments"))

    assert answers == [["d0", "d1", "d2", "d3", "d4", "it"]] * 6


def test_housekeeping_gathers_what_nobody_asks_for_and_forgets_dropped_tables(
    admin: Client, sessions: Sessions
) -> None:
    colours = {
        "name": "colours",
        "columns": [{"name": "id", "type": "bigint"}, {"name": "name", "type": "text", "filterable": True}],
        "key": ["id"],
    }
    assert admin.post("/v1/tables", colours).status_code == 201
    long = "x" * 2000
    rows = [{"id": 1, "name": "red"}, {"id": 2, "name": long}]
    assert admin.post("/v1/tables/colours/records:upsert", {"rows": rows}).get_json()["failed"] == []

    assert Pickers(sessions).gather_all() == 1
    assert kept(sessions) == {"name": ["red"]}
    admin.delete("/v1/tables/colours")

    assert kept(sessions) == {}
    assert Pickers(sessions).gather_all() == 0


def test_tenants_see_only_their_own_values(member: Client, stranger: Client) -> None:
    member.post("/v1/tables/contacts/records:upsert", {"rows": [{"linkedin_url": "x", "country": "DE"}]})

    assert picked(stranger, "country") == []
    assert picked(member, "country") == ["DE"]
