"""Document 003 on payloads, direct runs and nested scheduling, sentence by sentence, through the native API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from config.settings import Settings
from tasks import members
from tasks.types.echo import JOB_TYPE as ECHO
from tasks.types.extend import JOB_TYPE as EXTEND
from tasks.types.fail import JOB_TYPE as FAIL
from tests.integration.conftest import Client
from tests.integration.families import Installation
from tests.integration.worker import Worker, run_small


class Bench(Installation):
    """A client of the native API, and an installation whose slot really runs what it claims."""

    def __init__(self, worker: Worker, client: Client) -> None:
        super().__init__(worker.sessions)
        self.worker = worker
        self.client = client

    def batch(self, *payloads: dict[str, Any], **options: Any) -> str:
        answer = self.client.post("/v1/batches", {"payloads": payloads, **options})
        assert answer.status_code == 202, answer.get_json()
        return str(answer.get_json()["id"])

    def run(self) -> int:
        self.tick()
        return run_small(self.worker)

    def run_all(self) -> None:
        while self.run():
            pass

    def items(self, batch: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(f"/v1/jobs/{batch}/children").get_json()["items"]
        return found

    def counts(self, batch: str) -> dict[str, int]:
        found: dict[str, int] = self.client.get(f"/v1/jobs/{batch}/children:count").get_json()
        return found


@pytest.fixture
def here(
    sessions: Sessions, settings: Settings, objects: ObjectStore, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """No claimed batch is out of time, however slow the machine is."""
    monkeypatch.setattr(members, "KEEP_FOR_S", 60.0)
    worker = Worker(sessions, settings, objects, cheap=True, types=(ECHO, EXTEND, FAIL))
    worker.heart.start()
    yield Bench(worker, admin)
    worker.heart.stop()


def echo(value: Any) -> dict[str, Any]:
    return {"type": "echo", "config": {"value": value}}


FAILS = {"type": "fail", "config": {"transient": False}}


@pytest.mark.feature("S3-04", "S3-19")
def test_the_payload_is_one_or_more_apis_each_with_its_parameters(here: Bench) -> None:  # S3-04 S3-19
    batch = here.batch(echo("one"), echo("two"), FAILS)

    here.run_all()

    assert [(item["type"], item["config"], item["state"]) for item in here.items(batch)] == [
        ("echo", {"value": "one"}, "completed"),
        ("echo", {"value": "two"}, "completed"),
        ("fail", {"transient": False}, "failed"),
    ]


@pytest.mark.feature("S3-10")
def test_the_input_and_the_results_of_each_api_can_be_tracked(here: Bench) -> None:  # S3-10
    batch = here.batch(echo({"page": 1}), FAILS)

    here.run_all()

    good, bad = here.items(batch)
    assert (good["config"], good["result"], good["attempts"]) == ({"value": {"page": 1}}, {"value": {"page": 1}}, 1)
    assert good["finished_at"] > good["started_at"]
    assert (bad["result"], bad["error"]["message"]) == (None, "failed as asked")


@pytest.mark.feature("S3-09")
def test_a_job_run_tells_the_number_of_pending_and_completed_payloads(here: Bench) -> None:
    batch = here.batch(*(echo(n) for n in range(7)), max_concurrency=3)
    here.run()
    here.tick()

    counts = here.counts(batch)

    assert (counts["total"], counts["completed"], counts["pending"]) == (7, 3, 4)


@pytest.mark.feature("S3-20")
def test_the_payload_of_a_job_can_be_extended_during_its_run(here: Bench) -> None:  # S3-20
    batch = here.batch({"type": "extend", "config": {"payloads": [echo("page 2"), echo("page 3")]}})

    here.run_all()

    assert [item["result"] for item in here.items(batch)] == [{"added": 2}, {"value": "page 2"}, {"value": "page 3"}]
    assert here.counts(batch)["total"] == 3
    assert here.client.get(f"/v1/jobs/{batch}").get_json()["state"] == "completed"


@pytest.mark.feature("S3-20")
def test_new_apis_may_have_new_parameters_and_extend_in_their_turn(here: Bench) -> None:  # S3-20
    nested = {"type": "extend", "config": {"payloads": [echo("page 3")]}}
    batch = here.batch({"type": "extend", "config": {"payloads": [echo("page 2"), nested]}})

    here.run_all()

    assert [item["type"] for item in here.items(batch)] == ["extend", "echo", "extend", "echo"]


@pytest.mark.feature("S3-31")
def test_at_most_five_payloads_run_at_the_same_time_when_nothing_is_said(here: Bench) -> None:
    batch = here.batch(*(echo(n) for n in range(7)))
    here.tick()

    assert len(here.claim()) == 5
    assert here.client.get(f"/v1/jobs/{batch}").get_json()["config"]["max_concurrency"] == 5


@pytest.mark.feature("S3-05")
def test_one_payload_can_be_run_directly(here: Bench) -> None:
    accepted = here.client.post("/v1/runs", {**echo("now"), "wait_s": 0})
    here.run()

    again = here.client.get(accepted.headers["Location"] + "/result")

    assert accepted.status_code == 202
    assert again.get_json()["data"] == {"value": "now"}
    assert UUID(accepted.get_json()["id"])
