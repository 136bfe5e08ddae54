"""Steering through the native API: terminate, queues, limits, workers, and why a job waits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import a_slot
from tests.integration.conftest import Client


def a_job(client: Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", {"type": "echo", **body})
    assert answer.status_code == 202, answer.get_json()
    job: dict[str, Any] = answer.get_json()
    return job


def reasons(client: Client, job_id: str) -> dict[str, Any]:
    why = client.get(f"/v1/jobs/{job_id}").get_json()["why_waiting"]
    return {reason["cause"]: reason["data"] for reason in why["reasons"]}


@pytest.mark.feature("S3-18")
def test_a_job_that_waits_is_terminated_at_once(member: Client) -> None:
    job = a_job(member, run_after="2036-01-01T00:00:00Z")

    answer = member.post(f"/v1/jobs/{job['id']}:terminate").get_json()

    trail = member.get(f"/v1/jobs/{job['id']}/events").get_json()["items"]
    assert answer["fate"] == "ended"
    assert (answer["job"]["state"], answer["job"]["cancel_reason"]) == ("cancelled", "user")
    assert trail[-1]["data"] == {"reason": "user", "terminated": True}
    assert member.post(f"/v1/jobs/{job['id']}:terminate").status_code == 409


@pytest.mark.parametrize(("may_kill", "fate"), [(True, "killed"), (False, "asked")])
def test_the_answer_says_whether_a_running_job_can_be_killed(
    member: Client, sessions: Sessions, *, may_kill: bool, fate: str
) -> None:
    job = a_job(member)
    slot = a_slot(sessions)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET may_kill = :may_kill"), {"may_kill": may_kill})
    Runs(sessions).claim("small", slot, most=1, oldest=False)

    answer = member.post(f"/v1/jobs/{job['id']}:terminate").get_json()

    assert answer["fate"] == fate
    assert (answer["job"]["state"], answer["job"]["cancel_requested"]) == ("running", True)


def test_terminating_a_batch_ends_what_waits_and_has_what_runs_killed(member: Client, sessions: Sessions) -> None:
    batch = member.post("/v1/batches", {"payloads": [{"type": "echo"}] * 2}).get_json()["id"]
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET state = 'running', worker = gen_random_uuid() WHERE parent_id = :id AND child_no = 0"
            ),
            {"id": UUID(batch)},
        )

    fate = member.post(f"/v1/jobs/{batch}:terminate").get_json()["fate"]

    with sessions.begin() as session:
        rows = session.execute(
            text("SELECT state, terminate FROM jobs WHERE parent_id = :id ORDER BY child_no"), {"id": UUID(batch)}
        ).all()
    assert fate == "ended"
    assert [tuple(row) for row in rows] == [("running", True), ("cancelled", False)]


def test_a_paused_queue_is_shown_and_says_why_its_jobs_wait(admin: Client) -> None:
    paused = admin.post("/v1/queues/small:pause").get_json()
    job = a_job(admin)

    waits = reasons(admin, job["id"])
    shown = {queue["name"]: queue for queue in admin.get("/v1/queues").get_json()["items"]}
    resumed = admin.post("/v1/queues/small:resume").get_json()

    assert (paused["paused"], resumed["paused"]) == (True, False)
    assert waits["pause"] == {"paused": "queue", "queue": "small"}
    assert (shown["small"]["paused"], shown["small"]["open"], shown["small"]["queued"]) == (True, 1, 0)
    assert list(shown) == ["data", "small", "http", "retry"]


def test_a_queue_that_does_not_exist_is_404(admin: Client) -> None:
    assert admin.post("/v1/queues/elsewhere:pause").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/queues/small:pause", None),
        ("POST", "/v1/queues/small:resume", None),
        ("PUT", "/v1/workers/data/concurrency", {"slots": 2}),
        ("PUT", "/v1/limits/tenant/acme", {"max_concurrency": 1}),
        ("PUT", "/v1/limits/type/echo", {"max_concurrency": 1}),
        ("DELETE", "/v1/limits/type/echo", None),
        ("GET", "/v1/workers", None),
    ],
)
def test_what_concerns_every_tenant_is_for_the_admin_of_the_installation(
    member: Client, stranger: Client, method: str, path: str, body: Any
) -> None:
    asked = {"json": body} if body is not None else {}

    answers = [client.call(method, path, **asked) for client in (member, stranger)]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[1].get_json()["code"] == "auth.operator_needed"


def test_a_limit_is_set_shown_replaced_and_taken_away(admin: Client, stranger: Client) -> None:
    put = [
        admin.put("/v1/limits/tenant/acme", {"max_concurrency": 5}),
        admin.put("/v1/limits/type/echo", {"rate": 10, "period_s": 60}),
        admin.put("/v1/limits/key/bank", {"max_concurrency": 1}),
        admin.put("/v1/limits/key/bank", {"max_concurrency": 2}),
    ]

    ours, theirs = ({(one["kind"], one["name"]) for one in client.get("/v1/limits").get_json()["items"]}
                    for client in (admin, stranger))  # fmt: skip
    gone = [admin.delete("/v1/limits/key/bank").status_code for _ in range(2)]

    assert [answer.status_code for answer in put] == [200] * 4
    assert put[3].get_json()["max_concurrency"] == 2
    assert ours == {("tenant", "acme"), ("type", "echo"), ("key", "bank")}
    assert theirs == {("tenant", "acme"), ("type", "echo")}
    assert gone == [204, 404]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("key/bank", {}, "/max_concurrency"),
        ("key/bank", {"max_concurrency": -1}, "/max_concurrency"),
        ("key/bank", {"rate": 3}, "/period_s"),
        ("key/bank", {"period_s": 3}, "/rate"),
        ("key/bank", {"rate": 0, "period_s": 3}, "/rate"),
        ("key/bank", {"rate": 1, "period_s": 0}, "/period_s"),
        ("type/no_such", {"max_concurrency": 1}, "?limited"),
        ("tenant/No", {"max_concurrency": 1}, "/tenant"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(admin: Client, path: str, body: Any, pointer: str) -> None:
    answer = admin.put(f"/v1/limits/{path}", body)

    assert answer.status_code == 422
    assert [problem["pointer"] for problem in answer.get_json()["errors"]] == [pointer]


@pytest.mark.feature("S4-133")
def test_changes_of_queues_limits_and_workers_are_recorded(admin: Client) -> None:
    admin.post("/v1/queues/data:pause")
    admin.post("/v1/queues/data:pause")
    admin.put("/v1/limits/key/bank", {"max_concurrency": 1})
    answer = admin.put("/v1/workers/data/concurrency", {"slots": 8})

    changes = admin.get("/v1/changes").get_json()["items"]

    assert answer.get_json()["wanted_slots"] == 8
    assert [(change["what"], change["before"], change["after"]) for change in changes] == [
        ("queue data slots", None, 8),
        ("limit key bank", None, {"max_concurrency": 1, "rate": None, "period_s": None}),
        ("queue data paused", False, True),
    ]
    assert all(change["actor"].startswith("key:") for change in changes)


def test_a_queue_whose_workers_cannot_grow_says_so(admin: Client) -> None:
    assert admin.put("/v1/workers/small/concurrency", {"slots": 8}).status_code == 409
    assert admin.put("/v1/workers/nowhere/concurrency", {"slots": 8}).status_code == 404
    assert admin.put("/v1/workers/data/concurrency", {"slots": 0}).status_code == 422


def test_workers_show_their_slots_and_what_they_hold(admin: Client, sessions: Sessions) -> None:
    job = a_job(admin)
    slot = a_slot(sessions)
    Runs(sessions).claim("small", slot, most=1, oldest=False)

    [shown] = admin.get("/v1/workers").get_json()["items"]

    assert (shown["id"], shown["queue"], shown["job_ids"]) == (str(slot), "small", [job["id"]])


@pytest.mark.feature("S0-07", "S4-67")
def test_a_queued_job_without_a_worker_says_so_and_where_it_stands(member: Client) -> None:
    a_job(member)
    job = a_job(member)

    why = member.get(f"/v1/jobs/{job['id']}").get_json()["why_waiting"]

    assert [reason["cause"] for reason in why["reasons"]] == ["no_worker"]
    assert (why["position"], why["likely_start_at"]) == (2, None)


def test_a_job_behind_others_is_told_when_it_will_likely_start(member: Client, sessions: Sessions) -> None:
    done = a_job(member)
    slot = a_slot(sessions)
    [held] = Runs(sessions).claim("small", slot, most=1, oldest=False)
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET state = 'completed', attempt_started_at = now() - interval '30 s', "
                "finished_at = now() WHERE id = :id"
            ),
            {"id": held.id},
        )
    a_job(member)
    job = a_job(member)

    why = member.get(f"/v1/jobs/{job['id']}").get_json()["why_waiting"]

    assert str(held.id) == done["id"]
    assert [reason["cause"] for reason in why["reasons"]] == ["busy"]
    assert why["position"] == 2
    assert why["likely_start_at"] > job["created_at"]


def test_a_job_over_a_limit_says_which_and_how_much_of_it_is_used(admin: Client) -> None:
    admin.put("/v1/limits/key/bank", {"max_concurrency": 0})
    job = a_job(admin, concurrency_key="bank:7", max_concurrency=3)

    waits = reasons(admin, job["id"])

    assert waits["limit"] == {"kind": "key", "name": "bank", "used": 0, "allowed": 0}


def test_a_job_says_which_jobs_it_waits_for_and_until_when(member: Client) -> None:
    first = a_job(member, run_after="2036-01-01T00:00:00Z")
    second = a_job(member, depends_on=[first["id"]])
    member.post(f"/v1/jobs/{first['id']}:pause")

    assert reasons(member, first["id"]) == {
        "pause": {"paused": "job"},
        "run_after": {"until": "2036-01-01T00:00:00+00:00"},
    }
    assert reasons(member, second["id"]) == {"dependency": {"job_ids": [first["id"]]}}


def test_a_child_outside_the_window_of_its_batch_says_so(member: Client) -> None:
    batch = member.post("/v1/batches", {"payloads": [{"type": "echo"}] * 6}).get_json()["id"]
    *_, child = member.get(f"/v1/jobs/{batch}/children").get_json()["items"]

    assert reasons(member, child["id"]) == {"window": {"parent_id": batch, "max_concurrency": 5}}


def test_a_list_says_why_when_it_is_asked_to(member: Client) -> None:
    a_job(member)

    silent = member.get("/v1/jobs").get_json()["items"][0]
    told = member.get("/v1/jobs?why=true").get_json()["items"][0]

    assert silent["why_waiting"] is None
    assert [reason["cause"] for reason in told["why_waiting"]["reasons"]] == ["no_worker"]
    assert member.get("/v1/jobs?why=true&limit=101").status_code == 422


def test_the_etag_of_a_waiting_job_changes_with_what_it_waits_for(member: Client, sessions: Sessions) -> None:
    job = a_job(member)
    etag = member.get(f"/v1/jobs/{job['id']}").headers["ETag"]
    same = member.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": etag}).status_code
    a_slot(sessions)

    changed = member.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": etag}).status_code

    assert (same, changed) == (304, 200)


@pytest.mark.feature("S2-39", "S2-40", "S2-91")
def test_a_job_with_resources_is_routed_to_a_process_of_its_own_and_shows_them(member: Client) -> None:
    """As document 002 writes them, and with the priority beside or inside."""
    job = a_job(member, resources={"memory": "1GB", "cpu": "1000m", "priority": "high"})
    beside = a_job(member, resources={"memory_mb": 512, "cpu": 0.5}, priority="low")

    assert (job["queue"], job["priority"]) == ("data", "high")
    assert job["resources"] == {"memory_mb": 1024, "cpu": 1.0}
    assert (beside["queue"], beside["priority"]) == ("data", "low")
    assert beside["resources"] == {"memory_mb": 512, "cpu": 0.5}


@pytest.mark.parametrize("option", [{"timeout_s": 60}, {"attempt_timeout_s": 60}])
def test_a_job_with_a_time_limit_is_routed_to_where_it_can_be_killed(member: Client, option: dict[str, Any]) -> None:
    assert a_job(member)["queue"] == "small"
    assert a_job(member, **option)["queue"] == "data"


@pytest.mark.feature("S2-91")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"resources": {"memory": "lots"}}, "/resources/memory"),
        ({"resources": {"memory": "1KB"}}, "/resources/memory"),
        ({"resources": {"memory_mb": 0}}, "/resources/memory_mb"),
        ({"resources": {"memory": "1GB", "memory_mb": 1}}, "/resources/memory_mb"),
        ({"resources": {"cpu": "two"}}, "/resources/cpu"),
        ({"resources": {"cpu": 0}}, "/resources/cpu"),
        ({"resources": {"cpu": True}}, "/resources/cpu"),
        ({"resources": {"disk": 1}}, "/resources/disk"),
        ({"resources": {"priority": "urgent"}}, "/resources/priority"),
        ({"resources": {"priority": "high"}, "priority": "low"}, "/priority"),
        ({"max_concurrency": 2}, "/max_concurrency"),
        ({"concurrency_key": ""}, "/concurrency_key"),
        ({"concurrency_key": "k", "max_concurrency": 0}, "/max_concurrency"),
    ],
)
def test_resources_and_bounds_that_mean_nothing_are_refused(member: Client, body: Any, pointer: str) -> None:
    answer = member.post("/v1/jobs", {"type": "echo", **body})

    assert answer.status_code == 422
    assert pointer in [problem["pointer"] for problem in answer.get_json()["errors"]]


def test_a_schedule_gives_its_jobs_resources_and_a_key(member: Client) -> None:
    template = {"type": "echo", "concurrency_key": "bank", "max_concurrency": 1, "resources": {"cpu": 2}}
    schedule = member.post("/v1/schedules", {"name": "nightly", "template": template}).get_json()

    job = member.post(f"/v1/schedules/{schedule['id']}:trigger").get_json()

    assert schedule["template"]["resources"] == {"memory_mb": None, "cpu": 2.0}
    assert (job["concurrency_key"], job["max_concurrency"], job["resources"]["cpu"]) == ("bank", 1, 2.0)
    assert (job["queue"], job["state"]) == ("data", "open")
