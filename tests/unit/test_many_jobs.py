"""Many jobs at once: their text for the statement, and what tells a request for them from another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from app.domain.retry import RetryChanges, RetryPolicy
from app.domain.texts import is_storable
from app.persistence.new_jobs import Alike, Child, Chunk, chunk, new_job
from app.services.once import Fingerprint
from tests.factories import a_request


def test_jobs_keep_their_place_whatever_they_have_in_common() -> None:
    one = Alike(a_request(), "small", RetryPolicy())
    other = replace(one, queue="data", parent_id=uuid4(), blocked=True)
    made = Chunk()

    for place, alike in enumerate((one, other, one)):
        made.add(alike, f"id{place}", {"value": place}, labels={"n": str(place)} if place else None, child_no=place)

    first, second = json.loads(made.text())
    assert [(job["id"], job["place"], job["config"]["value"]) for job in first["jobs"]] == [
        ("id0", 0, 0),
        ("id2", 2, 2),
    ]
    assert [job.get("labels") for job in first["jobs"]] == [None, {"n": "2"}]
    assert [(job["place"], job["child_no"]) for job in second["jobs"]] == [(1, 1)]
    assert (second["queue"], second["parent_id"], second["blocked"]) == ("data", str(other.parent_id), True)
    assert len(made) == 3


def test_a_child_and_one_that_waits_begin_blocked() -> None:
    child = Child(uuid4(), 7, "seventh")
    options: dict[str, Any] = {"queue": "small", "retry": RetryPolicy()}
    new = [
        new_job(a_request(labels={"a": "b"}), job_id=uuid4(), **options),
        new_job(a_request(), job_id=uuid4(), needs_left=2, name="named", **options),
        new_job(a_request(), job_id=uuid4(), child=child, **options),
    ]

    read = json.loads(chunk(new).text())

    assert [one["blocked"] for one in read] == [False, True, True]
    jobs = [one["jobs"][0] for one in read]
    assert [job.get("name") for job in jobs] == [None, "named", "seventh"]
    assert [job.get("child_no") for job in jobs] == [None, None, 7]
    assert jobs[0]["labels"] == {"a": "b"}


def fingerprint(*jobs: tuple[Any, ...]) -> bytes:
    said = Fingerprint()
    for job in jobs:
        said.add(*job)
    return said.bytes()


def test_what_a_request_for_many_says_tells_it_from_others() -> None:
    options, slow = a_request(), a_request(timeout_s=60.0)
    said = [(options, {"value": 1}, "a"), (slow, {"value": 2}, "b")]

    others = [
        said[::-1],
        said[:1],
        [(slow, {"value": 1}, "a"), said[1]],
        [(options, {"value": 3}, "a"), said[1]],
        [(options, {"value": 1}, "c"), said[1]],
    ]

    assert fingerprint(*said) == fingerprint(*[(replace(one), *own) for one, *own in said])
    assert len({fingerprint(*said), *(fingerprint(*other) for other in others)}) == len(others) + 1


def test_equal_changes_of_a_policy_are_one_key() -> None:
    known = {RetryChanges({"maximum_attempts": 2}): "twice"}

    assert known[RetryChanges({"maximum_attempts": 2})] == "twice"
    assert RetryChanges({"maximum_attempts": 3}) not in known


@pytest.mark.parametrize("bad", ["\0", "\ud800"])
def test_text_that_postgres_cannot_hold_is_found_at_any_depth(bad: str) -> None:
    deep: list[Any] = [{bad: 1}, {"a": bad}, {"a": {"b": [1, {"c": bad}]}}, [[bad]], {"a": {"b": {bad: None}}}]

    assert not any(map(is_storable, deep))
    assert all(map(is_storable, [None, 1.5, True, {"a": [{"b": "\U0001f600"}]}, {1: "a"}]))
