"""Jobs by VQL: the conditions, orders and cursors of records, over the tenant's own jobs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.persistence.sessions import Sessions
from tests.integration.conftest import Client


@pytest.fixture
def jobs(member: Client, stranger: Client, sessions: Sessions) -> list[str]:
    """Ids of six jobs, oldest first; another tenant has two."""
    for _ in range(2):
        stranger.post("/v1/jobs", {"type": "echo"})
    made = [member.post("/v1/jobs", {"type": ("echo", "sleep")[n % 2]}).get_json()["id"] for n in range(6)]
    with sessions.begin() as session:
        for place, job_id in enumerate(made):
            session.execute(
                text("UPDATE jobs SET rows_done = :rows, stage = :stage WHERE id = CAST(:id AS uuid)"),
                {"rows": place * 10, "stage": f"step {place % 3}", "id": job_id},
            )
    return made


def found(client: Client, **body: Any) -> list[str]:
    answer = client.post("/v1/jobs:query", body)
    assert answer.status_code == 200, answer.get_json()
    return [job["id"] for job in answer.get_json()["items"]]


def test_jobs_are_found_by_the_conditions_of_vql(member: Client, jobs: list[str]) -> None:
    sleeping = {"keyword_match": {"must": {"type": "sleep"}}, "range_query": {"must": {"rows_done": {"gte": 30}}}}
    staged = {"text_matches": {"must": [{"text_value": "step 2", "filter_key": "stage", "search_type": "exact"}]}}
    order = [{"order_by": "rows_done", "order_direction": "asc"}]

    assert found(member) == jobs[::-1]
    assert found(member, vql={"where": sleeping}) == [jobs[5], jobs[3]]
    assert found(member, vql={"where": staged, "order_by": order}) == [jobs[2], jobs[5]]
    assert found(member, vql={"limit": 2}) == [jobs[5], jobs[4]]


def test_pages_of_jobs_follow_each_other(member: Client, jobs: list[str]) -> None:
    for order in ([], [{"order_by": "stage"}, {"order_by": "created_at", "order_direction": "desc"}]):
        whole = found(member, vql={"order_by": order})
        pages, cursor = [], None
        while True:
            page = member.post("/v1/jobs:query", {"vql": {"order_by": order}, "limit": 4, "cursor": cursor}).get_json()
            pages += [job["id"] for job in page["items"]]
            if (cursor := page["next_cursor"]) is None:
                break

        assert pages == whole
        assert sorted(pages) == sorted(jobs)


def test_what_no_query_of_jobs_can_ask_is_refused_with_its_place(member: Client) -> None:
    hidden = member.post("/v1/jobs:query", {"vql": {"where": {"keyword_match": {"must": {"tenant": "acme"}}}}})
    columns = member.post("/v1/jobs:query", {"vql": {"select_columns": ["id"]}})

    assert (hidden.status_code, hidden.get_json()["code"]) == (422, "vql.unknown_column")
    assert columns.get_json()["errors"][0]["pointer"] == "/vql/select_columns"
