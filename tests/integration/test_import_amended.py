"""An import whose config is changed on the way, and what becomes of rows that are refused or empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import JobError, JobPaused
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.context import RunContext
from tasks.slot import end_stopped
from tasks.types.import_rows import Import
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import Killed, books, stop_after
from tests.integration.test_ledger import THINGS, replayed

MIXED = "id,name,amount\n" + "".join(f"{n},n{n},{'-' if n % 3 == 1 else n}\n" for n in range(30))


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    Tables(sessions).declare("default", THINGS)
    return ImportingAny(settings, sessions, objects)


def paused(imports: ImportingAny, context: RunContext) -> None:
    """Run a job that its budget pauses, as a worker does."""
    with pytest.raises(JobPaused) as raised:
        imports.run(context)
    context.stop(raised.value)
    end_stopped(Runs(imports.sessions), context)


@pytest.mark.feature("S4-121")
def test_a_paused_import_goes_on_under_a_mended_config_and_replays_what_it_had_refused(
    imports: ImportingAny, member: Client
) -> None:
    job_id = imports.submit(MIXED, batch_rows=3, max_errors=2)
    paused(imports, imports.context(job_id))

    answer = member.post(f"/v1/jobs/{job_id}:resume", {"config": {"null_tokens": ["-"], "max_errors": None}})
    result = imports.run(imports.context(job_id))
    refused = len(imports.ledger(job_id))
    _, replay = replayed(imports, job_id)

    events = member.get(f"/v1/jobs/{job_id}/events").get_json()["items"]
    assert answer.get_json()["config"]["null_tokens"] == ["-"]
    assert [event["data"]["config"] for event in events if event["type"] == "job.resumed"] == [
        {"max_errors": {"before": 2}, "null_tokens": {"after": ["-"]}}
    ]
    assert result.data["books"]["failed"] == refused == replay.data["resolved"] >= 3
    assert imports.rows("SELECT count(*), count(amount) FROM t_default.things") == [(30, 20)]


@pytest.mark.parametrize("commits", [3, 6, 9, 12])
def test_lanes_that_are_apart_when_the_mapping_changes_lose_and_double_no_row(
    imports: ImportingAny, commits: int
) -> None:
    job_id = imports.submit(MIXED, batch_rows=3)
    context = imports.context(job_id)
    stop_after(context, commits=commits)
    with pytest.raises(Killed):
        imports.run(context)
    imports.rows('UPDATE jobs SET config = config || \'{"null_tokens": ["-"]}\' WHERE id = :id RETURNING 1', id=job_id)

    result = imports.run(imports.context(job_id))

    done = result.data["books"]
    assert done["read"] == 30 == done["loaded"] + done["failed"]
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(done["loaded"],)]
    assert len(imports.ledger(job_id)) == done["failed"]


@pytest.mark.feature("S4-121")
def test_a_failed_job_is_retried_under_another_config(imports: ImportingAny, member: Client) -> None:
    job_id = imports.submit("key,name\n1,one\n")
    context = imports.context(job_id)
    with pytest.raises(JobError) as raised:
        imports.run(context)
    Runs(imports.sessions).fail(context.job, raised.value)

    wrong = member.post(f"/v1/jobs/{job_id}:retry", {"config": {"mapping": 7}})
    right = member.post(f"/v1/jobs/{job_id}:retry", {"config": {"mapping": {"key": "id"}}})
    result = imports.run(imports.context(job_id))

    assert raised.value.code == "csv.header_unknown"
    assert (wrong.status_code, wrong.get_json()["errors"][0]["pointer"]) == (422, "/config/mapping")
    assert right.status_code == 200
    assert books(result) == {"read": 1, "loaded": 1}


def test_a_config_that_reads_other_records_is_refused(imports: ImportingAny) -> None:
    job_id = imports.submit(MIXED, batch_rows=3)
    context = imports.context(job_id)
    stop_after(context, commits=3)
    with pytest.raises(Killed):
        imports.run(context)
    imports.rows("UPDATE jobs SET config = config || '{\"skip_rows\": 1}' WHERE id = :id RETURNING 1", id=job_id)

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "import.config_changed"


DECISIVE: dict[str, Any] = {
    "table": "others",
    "encoding": "latin-1",
    "compression": "none",
    "delimiter": ";",
    "revertible": True,
    "source": {"text": MIXED, "s3": None},
    "format": "csv",
    "header": ["id", "name", "amount"],
    "skip_rows": 1,
    "sheet": 2,
    "merged_cells": "fill",
    "validate_only": True,
}


@pytest.mark.parametrize("name", DECISIVE)
def test_a_patch_that_would_read_other_records_is_refused_at_once(
    imports: ImportingAny, member: Client, name: str
) -> None:
    Tables(imports.sessions).declare("default", replace(THINGS, name="others"))
    job_id = imports.submit(MIXED, batch_rows=3, max_errors=2)
    paused(imports, imports.context(job_id))
    before = member.get(f"/v1/jobs/{job_id}").get_json()["config"]

    answer = member.post(f"/v1/jobs/{job_id}:resume", {"config": {name: DECISIVE[name]}})

    now = member.get(f"/v1/jobs/{job_id}").get_json()
    assert (answer.status_code, answer.get_json()["code"]) == (409, "import.config_changed")
    assert f"another {name}" in answer.get_json()["detail"]
    assert (now["config"], now["paused"]) == (before, True)


def test_each_option_that_the_records_hang_on_is_among_them() -> None:
    begun = Import.model_validate({"source": {"text": "a"}, "table": "things"})
    told = {name: value for name, value in DECISIVE.items() if name not in ("table", "source", "validate_only")}

    for name, value in told.items():
        other = Import.model_validate({"source": {"text": "a"}, "table": "things", name: value})
        assert other.options().records_fingerprint("", "") != begun.options().records_fingerprint("", ""), name
    assert DECISIVE.keys() == set(Import.DECISIVE)


def test_a_config_is_changed_only_at_rest_and_of_a_single_job(imports: ImportingAny, member: Client) -> None:
    running, waiting = imports.context(imports.submit(MIXED)).id, imports.submit(MIXED)
    family = member.post("/v1/batches", {"payloads": [{"type": "echo"}]}).get_json()["id"]
    patch = {"config": {"ignore_unknown": True}}

    answers = [member.post(f"/v1/jobs/{job_id}:resume", patch) for job_id in (running, family, waiting)]

    assert [answer.status_code for answer in answers] == [409, 409, 409]


@pytest.mark.parametrize(
    ("on_invalid", "expected"),
    [
        ("quarantine", {"read": 30, "loaded": 20, "failed": 10}),
        ("skip", {"read": 30, "loaded": 20, "skipped": 10}),
    ],
)
def test_refused_rows_are_kept_or_left_out_as_the_config_says(
    imports: ImportingAny, on_invalid: str, expected: dict[str, int]
) -> None:
    result = imports.load(MIXED, on_invalid=on_invalid, batch_rows=7)

    assert books(result) == expected
    assert len(imports.ledger()) == expected.get("failed", 0)


def test_rows_that_are_left_out_count_against_the_budget(imports: ImportingAny) -> None:
    with pytest.raises(JobPaused, match="records were refused"):
        imports.load(MIXED, on_invalid="skip", batch_rows=7, max_errors=3)


def test_a_refused_row_fails_the_job_that_wants_that_and_its_batch_is_not_in(imports: ImportingAny) -> None:
    with pytest.raises(JobError) as raised:
        imports.load("id,name\n1,a\n2,b\nx,c\n4,d\n", on_invalid="fail", batch_rows=2, lanes=1)

    assert raised.value.code == "import.invalid_row"
    assert raised.value.data == {"line": 4, "field": "id", "code": "value.bigint"}
    assert imports.rows("SELECT id FROM t_default.things ORDER BY id") == [(1,), (2,)]


@pytest.mark.feature("S4-115")
@pytest.mark.parametrize(
    "body",
    [
        'id,name,amount\n1,,\n2,NULL,\n3,"a\\N",1\n',
        '{"id":1,"name":""}\n{"id":2,"name":null,"amount":""}\n{"id":3,"name":"a\\\\N","amount":1}\n',
        '[{"id":1,"name":"","amount":null},{"id":2},{"id":3,"name":"a\\\\N","amount":1}]',
    ],
)
def test_empty_text_is_kept_apart_from_null(imports: ImportingAny, body: str) -> None:
    imports.load(body, empty_as="text", null_tokens=["NULL"])
    again = imports.load(body, empty_as="text", null_tokens=["NULL"])

    assert imports.rows("SELECT name, amount FROM t_default.things ORDER BY id") == [
        ("", None),
        (None, None),
        ("a\\N", 1),
    ]
    assert books(again) == {"read": 3, "unchanged": 3}


def test_empty_text_stays_apart_from_null_in_a_replay(imports: ImportingAny) -> None:
    job = imports.context(
        imports.submit('{"id":1,"name":null,"amount":"x"}\n{"id":2,"name":"","amount":"x"}\n', empty_as="text")
    )
    Runs(imports.sessions).complete(job.job, imports.run(job))
    imports.rows("UPDATE failed_records SET corrected = replace(raw, 'x', '1') RETURNING 1")

    replayed(imports, job.id)

    assert imports.rows("SELECT id, name FROM t_default.things ORDER BY id") == [(1, None), (2, "")]
