"""How far many jobs are together: the children of one, and those of a label."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.domain.progress import Progress, overall
from app.persistence.sessions import Sessions
from tests.integration.conftest import Client

# State, rows done, rows in all, bytes done, bytes in all.
MEMBERS: list[tuple[Any, ...]] = [
    ("completed", 40, 40, 9, 9),
    ("completed", 10, None, 0, None),  # it has no more than it did
    ("running", 30, 150, 0, None),
    ("failed", 0, 200, 5, 10),
]


def put(sessions: Sessions, job_ids: list[str], members: list[tuple[Any, ...]] = MEMBERS) -> None:
    """Let jobs stand where ``members`` say."""
    statement = text(
        "UPDATE jobs SET state = :state, rows_done = :done, rows_total = :total, bytes_done = :read,"
        " bytes_total = :size WHERE id = :id"
    )
    names = ("id", "state", "done", "total", "read", "size")
    with sessions.begin() as session:
        for job_id, member in zip(job_ids, members, strict=True):
            session.execute(statement, dict(zip(names, (job_id, *member), strict=True)))


def labelled(client: Client, label: str, count: int) -> list[str]:
    jobs = [{"type": "echo", "labels": {"run": label}}] * count
    return [str(job_id) for job_id in client.post("/v1/jobs:batch", {"jobs": jobs}).get_json()["ids"]]


@pytest.mark.feature("S2-61")
def test_the_payloads_of_a_batch_are_weighed_by_job_and_by_row(member: Client, sessions: Sessions) -> None:
    batch = member.post("/v1/batches", {"payloads": [{"type": "echo"}] * 4}).headers["Location"]
    put(sessions, [child["id"] for child in member.get(f"{batch}/children").get_json()["items"]])

    far = member.get(f"{batch}/children:progress").get_json()

    each = [(Progress(*numbers), Progress(*numbers).percent(ended=state == "completed")) for state, *numbers in MEMBERS]
    assert far == {
        "jobs": 4,
        "completed": 2,
        "failed": 1,
        "cancelled": 0,
        "all_terminal": False,
        "all_succeeded": False,
        "rows_done": 80,
        "rows_total": 400,
        "mean_percent": 55.0,
        "weighted_percent": 20.0,
    }
    assert (overall(each).mean_percent, overall(each).weighted_percent) == (55.0, 20.0)


@pytest.mark.feature("S2-61")
def test_the_jobs_of_a_label_are_weighed_together(member: Client, stranger: Client, sessions: Sessions) -> None:
    labelled(stranger, "monday", 1)
    labelled(member, "tuesday", 1)
    put(sessions, labelled(member, "monday", 4))

    far = member.get("/v1/jobs:progress?label=run=monday").get_json()
    over = member.get("/v1/jobs:progress?label=run=monday&state=completed").get_json()

    assert (far["jobs"], far["mean_percent"], far["weighted_percent"]) == (4, 55.0, 20.0)
    assert (over["jobs"], over["all_succeeded"], over["weighted_percent"]) == (2, True, 100.0)


@pytest.mark.feature("S2-61")
def test_rows_are_not_weighed_while_a_job_does_not_know_how_many_it_has(member: Client, sessions: Sessions) -> None:
    put(sessions, labelled(member, "monday", 1), [("running", 5, None, 30, 40)])

    far = member.get("/v1/jobs:progress?label=run=monday").get_json()
    none = member.get("/v1/jobs:progress?label=run=sunday").get_json()

    assert (far["mean_percent"], far["weighted_percent"], far["rows_total"]) == (75.0, None, None)
    assert (none["jobs"], none["mean_percent"], none["weighted_percent"]) == (0, 100.0, None)


def test_progress_is_asked_of_a_label_or_of_a_job_that_is_there(member: Client, stranger: Client) -> None:
    theirs = stranger.post("/v1/jobs", {"type": "echo"}).get_json()["id"]

    assert member.get("/v1/jobs:progress").get_json()["errors"][0]["pointer"] == "?label"
    for job_id in (theirs, uuid4()):
        assert member.get(f"/v1/jobs/{job_id}/children:progress").status_code == 404
