"""Batches and pipelines that are sent twice, as clients meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.persistence import idempotency
from app.persistence.sessions import Sessions
from tests.integration.conftest import Client

KEY = {"Idempotency-Key": "once"}
Send = Callable[[Client, int], Any]


def _batch(client: Client, value: int) -> Any:
    return client.post("/v1/batches", {"payloads": [{"type": "echo", "config": {"value": value}}]}, headers=KEY)


def _lines(client: Client, value: int) -> Any:
    lines: list[dict[str, Any]] = [{}, *({"type": "echo", "config": {"value": n}} for n in (0, value))]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return client.call("POST", "/v1/batches", data=body, headers={**KEY, "Content-Type": "application/x-ndjson"})


def _pipeline(client: Client, value: int) -> Any:
    stage = {"name": "one", "type": "echo", "config": {"value": value}}
    return client.post("/v1/pipelines", {"name": "nightly", "stages": [stage]}, headers=KEY)


SENDS = pytest.mark.parametrize("send", [_batch, _lines, _pipeline], ids=["JSON", "lines", "pipeline"])


def jobs(client: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/v1/jobs").get_json()["items"]
    return items


@pytest.mark.feature("S2-92")
@SENDS
def test_a_family_that_is_sent_twice_with_one_key_is_made_once(admin: Client, send: Send) -> None:
    first, again = send(admin, 1), send(admin, 1)

    assert (first.status_code, again.status_code) == (202, 202)
    assert (again.get_json()["id"], again.headers["Location"]) == (first.get_json()["id"], first.headers["Location"])
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert len([job for job in jobs(admin) if job["parent_id"] is None]) == 1


@SENDS
def test_a_key_that_stood_for_another_family_is_refused(admin: Client, send: Send) -> None:
    send(admin, 1)

    answer = send(admin, 2)

    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency.key_reused")


@SENDS
def test_a_key_of_another_tenant_is_another_key(admin: Client, stranger: Client, send: Send) -> None:
    first, other = send(admin, 1), send(stranger, 2)

    assert (first.status_code, other.status_code) == (202, 202)


@SENDS
def test_a_family_whose_key_is_in_flight_is_told_to_come_again(admin: Client, sessions: Sessions, send: Send) -> None:
    with sessions.begin() as session:
        idempotency.try_lock(session, "default", "once")

        answer = send(admin, 1)

    assert (answer.status_code, answer.get_json()["code"], jobs(admin)) == (409, "idempotency.in_flight", [])


def test_a_key_stands_for_one_kind_of_job(admin: Client) -> None:
    _batch(admin, 1)

    assert _pipeline(admin, 1).status_code == 422


def test_another_name_is_another_pipeline(admin: Client) -> None:
    body = {"name": "nightly", "stages": [{"name": "one", "type": "echo"}]}
    admin.post("/v1/pipelines", body, headers=KEY)

    assert admin.post("/v1/pipelines", {**body, "name": "weekly"}, headers=KEY).status_code == 422


def test_a_batch_with_a_key_that_cannot_be_kept_is_refused(admin: Client) -> None:
    answer = admin.post("/v1/batches", {"payloads": [{"type": "echo"}]}, headers={"Idempotency-Key": "x" * 256})

    assert (answer.status_code, jobs(admin)) == (422, [])
