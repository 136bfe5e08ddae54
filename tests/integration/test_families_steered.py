"""Payloads and stages with a priority, a key and resources of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.domain.jobs import Job, Priority
from app.domain.pipelines import Stage
from app.domain.resources import Resources
from app.persistence.sessions import Sessions
from app.services.families import Payload, SubmitBatch
from app.services.pipelines import SubmitPipeline
from tests.integration.conftest import Client
from tests.integration.families import Installation

HOW: dict[str, Any] = {
    "priority": "low",
    "concurrency_key": "bank:1",
    "max_concurrency": 2,
    "resources": {"memory": "1GB", "cpu": "500m"},
}
SHOWN = {**HOW, "resources": {"memory_mb": 1024, "cpu": 0.5}}
PAYLOAD = {"type": "echo", "name": "one", **HOW}
PLAIN = {"type": "echo", "name": "two"}


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


def a_batch(here: Installation, *payloads: Payload, **options: Any) -> Job:
    return here.families.create_batch(SubmitBatch("default", payloads, "test", **options)).job


def keyed(count: int) -> list[Payload]:
    return [Payload("echo", {}, concurrency_key="bank", max_concurrency=2) for _ in range(count)]


def test_payloads_of_a_key_keep_its_limit_across_batches(here: Installation) -> None:
    for _ in range(2):
        a_batch(here, *keyed(3))

    assert here.work_off() == [2, 2, 2]


def test_a_stage_keeps_the_limit_of_its_key(here: Installation) -> None:
    a_batch(here, *keyed(2))
    stage = Stage("one", "echo", {}, concurrency_key="bank", max_concurrency=2)
    pipeline = here.pipelines.create(SubmitPipeline("default", "test", [stage], "test")).job

    sizes = here.work_off()

    assert sizes == [2, 1]
    assert here.jobs.get("default", pipeline.id).outcome is not None


def test_a_payload_without_a_priority_has_that_of_its_batch(here: Installation) -> None:
    payloads = [Payload("echo", {}, name="high", priority=Priority.HIGH), Payload("echo", {}, name="none")]

    batch = a_batch(here, *payloads, priority=Priority.LOW)

    found = here.children(batch.id)
    assert (found["high"].priority, found["none"].priority) == (Priority.HIGH, Priority.LOW)


def test_a_clone_of_a_batch_runs_its_payloads_as_the_first_does(here: Installation) -> None:
    how: dict[str, Any] = {"concurrency_key": "bank", "max_concurrency": 2, "resources": Resources(64, None)}
    first = a_batch(here, Payload("echo", {}, name="one", priority=Priority.HIGH, **how), priority=Priority.LOW)

    clone = here.clones.clone("default", first.id, actor="test")

    one = here.children(clone.id)["one"]
    assert {name: getattr(one, name) for name in how} == how
    assert (clone.priority, one.priority, one.queue) == (Priority.LOW, Priority.HIGH, "data")


def _children(client: Client, answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 202, answer.get_data(as_text=True)
    items: list[dict[str, Any]] = client.get(f"{answer.headers['Location']}/children").get_json()["items"]
    return items


def _sent_in_lines(client: Client, *payloads: dict[str, Any]) -> Any:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in ({}, *payloads))
    return client.call("POST", "/v1/batches", data=body, headers={"Content-Type": "application/x-ndjson"})


@pytest.mark.parametrize("way", ["JSON", "lines", "pipeline"])
def test_a_child_says_how_it_runs_as_a_job_does(admin: Client, way: str) -> None:
    payloads = [PAYLOAD, PLAIN]
    if way == "lines":
        answer = _sent_in_lines(admin, *payloads)
    elif way == "JSON":
        answer = admin.post("/v1/batches", {"payloads": payloads})
    else:
        answer = admin.post("/v1/pipelines", {"name": "nightly", "stages": payloads})

    one, two = _children(admin, answer)
    assert {name: one[name] for name in SHOWN} == SHOWN
    assert (one["queue"], two["queue"], two["priority"], two["concurrency_key"]) == ("data", "small", "normal", None)


def test_a_priority_in_the_resources_of_a_payload_is_the_payloads(admin: Client) -> None:
    payload = {"type": "echo", "resources": {"cpu": 1, "priority": "high"}}

    (one,) = _children(admin, admin.post("/v1/batches", {"payloads": [payload]}))

    assert one["priority"] == "high"


WRONG = [
    ({"max_concurrency": 2}, "/max_concurrency"),
    ({"concurrency_key": ""}, "/concurrency_key"),
    ({"concurrency_key": "k", "max_concurrency": 0}, "/max_concurrency"),
    ({"priority": "urgent"}, "/priority"),
    ({"resources": {"memory": "lots"}}, "/resources/memory"),
    ({"resources": {"memory": "1GB", "memory_mb": 1}}, "/resources/memory_mb"),
    ({"resources": {"cpu": 0}}, "/resources/cpu"),
    ({"timeout_s": 1}, "/timeout_s"),
]


@pytest.mark.parametrize(("how", "pointer"), WRONG)
def test_what_a_child_says_wrongly_is_pointed_at(admin: Client, how: dict[str, Any], pointer: str) -> None:
    payload = {**PLAIN, **how}

    batch = admin.post("/v1/batches", {"payloads": [PLAIN, payload]})
    lines = _sent_in_lines(admin, PLAIN, payload)
    pipeline = admin.post("/v1/pipelines", {"name": "nightly", "stages": [{**PLAIN, "name": "first"}, payload]})

    found = [[one["pointer"] for one in answer.get_json()["errors"]] for answer in (batch, lines, pipeline)]
    assert found == [[f"/payloads/1{pointer}"], [f"/2{pointer}"], [f"/stages/1{pointer}"]]


@pytest.mark.parametrize(
    "template",
    [
        {"type": "echo", **HOW},
        {"type": "batch", "payloads": [PAYLOAD, PLAIN]},
        {"type": "pipeline", "name": "nightly", "stages": [PAYLOAD, PLAIN]},
    ],
    ids=["job", "batch", "pipeline"],
)
def test_a_template_keeps_how_it_runs_and_is_shown_as_it_can_be_sent(admin: Client, template: dict[str, Any]) -> None:
    schedule = admin.post("/v1/schedules", {"name": "nightly", "template": template}).get_json()

    again = admin.post("/v1/schedules", {"name": "again", "template": schedule["template"]}).get_json()
    job = admin.post(f"/v1/schedules/{again['id']}:trigger").get_json()

    made = job if template["type"] == "echo" else admin.get(f"/v1/jobs/{job['id']}/children").get_json()["items"][0]
    assert again["template"] == schedule["template"]
    assert {name: made[name] for name in SHOWN} == SHOWN
