"""What the feature list says of imports and exports from the request to the file, through the API and a real worker."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from sqlalchemy import text

from app.bootstrap import build_services
from app.domain.calendars import MissedPolicy
from app.domain.job_types import Result
from app.domain.jobs import Priority
from app.domain.pipelines import Stage
from app.domain.ports import ObjectRef, ObjectStore
from app.factory import create_app
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.pipelines import SubmitPipeline
from app.services.tables import Tables
from config.settings import Settings
from tasks.types import export_rows, import_rows
from tasks.types.export_csv_file import JOB_TYPE as EXPORT
from tasks.types.insert_csv_file import JOB_TYPE as INSERT
from tests.conftest import BUCKET
from tests.integration.conftest import Client
from tests.integration.families import Installation
from tests.integration.imports import Importing
from tests.integration.timetables import Timetable
from tests.integration.worker import Worker, attempt, within

UUIDS = {"vql": {"select_columns": ["uuid"], "order_by": [{"order_by": "uuid"}]}}


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects, types=(INSERT, EXPORT, import_rows.JOB_TYPE, export_rows.JOB_TYPE))
    worker.heart.start()
    yield worker
    worker.heart.stop()


def put(objects: ObjectStore, lines: list[str], key: str = "uploads/in.csv") -> str:
    body = "\n".join(["first_name,email,country", *lines, ""]).encode()
    objects.put(ObjectRef(BUCKET, key), body, content_type="text/csv")
    return key


def people(count: int) -> list[str]:
    return [f"Person {number},p{number}@example.com,{('DE', 'FR')[number % 2]}" for number in range(count)]


def add_contacts(sessions: Sessions, count: int) -> None:
    Tables(sessions).get("default", "contacts")
    with sessions.begin() as session:
        session.execute(
            text("INSERT INTO t_default.contacts (uuid) SELECT gen_random_uuid() FROM generate_series(1, :count)"),
            {"count": count},
        )


def submit(client: Client, type_: str, config: dict[str, Any]) -> str:
    answer = client.post("/v1/jobs", {"type": type_, "config": config})
    assert answer.status_code == 202, answer.get_json()
    return f"/v1/jobs/{answer.get_json()['id']}"


@pytest.mark.feature("S1-16", "S2-64", "S2-65", "S2-77", "S4-26")
def test_an_import_tells_how_many_of_how_many_records_it_loaded(
    worker: Worker, member: Client, objects: ObjectStore
) -> None:
    lines = people(350)
    for place in (3, 30, 300):
        lines[place] = f"Person {place},no address,DE"
    path = submit(member, "insert_csv_file", {"s3_key": put(objects, lines)})

    attempt(worker)

    job, result = member.get(path).get_json(), member.get(f"{path}/result").get_json()
    refused = member.get(f"{path}/failed-records").get_json()["items"]
    countries = member.post("/common/contacts/filters/data", {"filter_key": "country"}).get_json()["data"]
    assert (job["state"], job["outcome"], job["error_count"]) == ("completed", "partial", len(refused))
    assert [row["line"] for row in refused] == [5, 32, 302]
    assert result["data"]["message"] == "successfully loaded 347 of 350 records"
    assert (result["record_count"], result["error_count"], result["duration_ms"]) == (350, 3, job["duration_ms"])
    assert countries == ["DE", "FR"]


@pytest.mark.feature("S0-09", "S0-22", "S2-67", "S2-69")
def test_a_completed_export_has_its_file_ready_whole_and_in_ranges(
    worker: Worker, member: Client, sessions: Sessions
) -> None:
    add_contacts(sessions, 50)
    path = submit(member, "export_csv_file", {"table": "contacts", **UUIDS})

    attempt(worker)

    state = member.get(path).get_json()["state"]
    file = member.get(f"{path}/artifacts").get_json()["items"][0]
    whole = requests.get(file["url"], timeout=10)
    rest = requests.get(file["url"], headers={"Range": "bytes=100-"}, timeout=10)
    by_result = requests.get(member.get(f"{path}/result").get_json()["file_url"], timeout=10)
    assert (state, whole.status_code, by_result.content) == ("completed", 200, whole.content)
    assert len(list(csv.reader(io.StringIO(whole.text)))) == 51
    assert (file["size_bytes"], file["sha256"]) == (len(whole.content), hashlib.sha256(whole.content).hexdigest())
    assert (rest.status_code, whole.content[:100] + rest.content) == (206, whole.content)


@pytest.mark.feature("S0-21")
def test_a_link_that_is_too_old_downloads_nothing_and_a_new_one_does(
    settings: Settings, worker: Worker, member: Client
) -> None:
    hasty = settings.model_copy(update={"presign_ttl_s": 1})
    services = build_services(hasty, application_name="tests hasty", pool_size=2)
    client = Client(create_app(hasty, services), member.key)
    path = submit(member, "export_csv_file", {"table": "contacts", **UUIDS})
    attempt(worker)

    old = client.get(f"{path}/result").get_json()["file_url"]
    refused = within(10, lambda: requests.get(old, timeout=10).status_code == 403)
    new = requests.get(member.get(f"{path}/result").get_json()["file_url"], timeout=10)

    services.sessions.kw["bind"].dispose()
    assert (refused, new.status_code) == (True, 200)


@pytest.mark.feature("S4-35", "S4-39", "S4-50", "S4-56", "S4-57", "S4-87")
def test_document_004s_page_size_does_not_shorten_its_file_which_the_response_names(
    worker: Worker, member: Client, sessions: Sessions, objects: ObjectStore
) -> None:
    add_contacts(sessions, 1_200)
    data = {"service": "contact", "vql": {**UUIDS["vql"], "limit": 500}}
    created = member.post("/common/jobs/create", {"job_type": "export_csv_file", "job_data": data}).get_json()

    attempt(worker)

    job = member.get(f"/common/jobs/{created['uuid']}").get_json()["data"]
    with objects.open(ObjectRef(BUCKET, job["job_response"]["s3_key"])) as file:
        lines = file.read().splitlines()
    assert (job["status"], job["job_response"]["s3_key"]) == ("completed", f"uploads/{created['uuid']}.csv")
    assert job["job_response"]["messages"].startswith("Export completed successfully")
    assert (lines[0], len(set(lines))) == (b"uuid", 1_201)


def batches_of(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return int(session.execute(text("SELECT count(DISTINCT batch) FROM import_batches")).scalar_one())


@pytest.mark.feature("S2-88", "S4-21")
def test_an_import_of_document_004_goes_in_batches_of_500(
    worker: Worker, member: Client, sessions: Sessions, objects: ObjectStore
) -> None:
    data = {"s3_key": put(objects, people(1_250))}
    member.post("/common/jobs/create", {"job_type": "insert_csv_file", "job_data": data})

    attempt(worker)

    assert batches_of(sessions) == 3


@pytest.mark.feature("S2-88", "S4-23")
@pytest.mark.parametrize(("config", "batches"), [({}, 2), ({"batch_rows": 5}, 3)])
def test_a_jobs_own_batch_size_wins_over_the_installations(
    settings: Settings, sessions: Sessions, objects: ObjectStore, config: dict[str, int], batches: int
) -> None:
    body = "first_name\n" + "".join(f"Person {number}\n" for number in range(12))

    Importing(settings, sessions, objects).load(body, settings={"batch_rows": 7}, **config)

    assert batches_of(sessions) == batches


@pytest.mark.feature("S4-23")
def test_the_batch_size_of_the_environment_is_that_of_document_004s_jobs(settings: Settings, member: Client) -> None:
    changed = settings.model_copy(update={"batch_size_for_insertion": 40})
    services = build_services(changed, application_name="tests batches", pool_size=2)
    client = Client(create_app(changed, services), member.key)
    body = {"job_type": "insert_csv_file", "job_data": {"s3_key": "uploads/a.csv"}}

    created = client.post("/common/jobs/create", body).get_json()

    services.sessions.kw["bind"].dispose()
    assert member.get(f"/v1/jobs/{created['uuid']}").get_json()["config"]["batch_rows"] == 40


@pytest.mark.feature("S0-06")
def test_each_fire_of_a_schedule_of_an_export_makes_a_file_of_its_own(
    worker: Worker, member: Client, sessions: Sessions, settings: Settings
) -> None:
    add_contacts(sessions, 3)
    here = Timetable(sessions, settings)
    template = {"type": "export_csv_file", "config": {"table": "contacts", **UUIDS}}
    policy = {"missed_policy": MissedPolicy.ALL, "missed_window_s": timedelta(hours=3).total_seconds()}
    schedule = here.hourly(slept=1, template=template, **policy)
    here.firing.fire(schedule.id)

    attempt(worker)
    attempt(worker)

    results = [member.get(f"/v1/jobs/{job.id}/result").get_json() for job in here.jobs_of(schedule)]
    assert len(here.fired(schedule)) == 2
    assert len({result["data"]["s3_key"] for result in results}) == 2
    assert [requests.get(result["file_url"], timeout=10).text.count("\n") for result in results] == [4, 4]


@pytest.mark.feature("S4-20")
def test_a_stage_whose_whole_place_is_filled_in_shows_the_installations_bucket_once_it_began(
    worker: Worker, sessions: Sessions, settings: Settings, objects: ObjectStore
) -> None:
    key = put(objects, people(3))
    named = {"key": key, "bucket": BUCKET}
    found = {"object": {"key": key}, "named": named, "source": {"s3": {"key": key}}, "none": None}
    to = {"table": "contacts"}
    here = Installation(sessions, settings)
    stages = [
        Stage("first", "echo", {}),
        Stage("object", "import", {**to, "source": {"s3": "{{ stages.first.result.object }}"}}, ("first",)),
        Stage("named", "import", {**to, "source": {"s3": "{{ stages.first.result.named }}"}}, ("first",)),
        Stage("source", "import", {**to, "source": "{{ stages.first.result.source }}"}, ("first",)),
        Stage("place", "export", {**to, "destination": "{{ stages.first.result.none }}"}, ("first",)),
        Stage("bucket", "export", {**to, "s3_bucket": "{{ stages.first.result.none }}"}, ("first",)),
    ]
    pipeline = here.pipelines.create(SubmitPipeline("default", "nightly", stages, "test", parallelism=9)).job
    here.tick()
    here.runs.complete(*here.claim(), Result(found))
    here.tick()
    with sessions.begin() as session:
        admission.admit(session, "data", Priority.NORMAL, bound=10)

    for _ in stages[1:]:
        attempt(worker)

    ran = {name: (job.state, job.config) for name, job in here.children(pipeline.id).items() if name != "first"}
    assert ran == {
        "object": ("completed", {**to, "source": {"s3": named}}),
        "named": ("completed", {**to, "source": {"s3": named}}),
        "source": ("completed", {**to, "source": {"s3": named}}),
        "place": ("completed", {**to, "destination": None, "s3_bucket": BUCKET}),
        "bucket": ("completed", {**to, "s3_bucket": BUCKET}),
    }
