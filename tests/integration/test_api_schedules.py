"""``/v1/schedules``."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.conftest import Client

NIGHTLY = {
    "name": "nightly",
    "template": {"type": "echo", "config": {"value": 1}, "priority": "high", "labels": {"team": "data"}},
    "rules": {"cron": {"expression": "0 2 * * *", "comment": "before work"}, "timezone": "Europe/Zurich"},
}


def a_schedule(client: Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/schedules", {**NIGHTLY, **changes})
    assert answer.status_code == 201, answer.get_json()
    made: dict[str, Any] = answer.get_json()
    return made


@pytest.mark.feature("S2-83", "S3-39")
def test_a_schedule_says_what_it_makes_and_when_it_fires_next(member: Client) -> None:
    answer = member.post("/v1/schedules", NIGHTLY)

    made = answer.get_json()
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    assert member.get(answer.headers["Location"]).get_json() == made
    assert made["template"]["priority"] == "high"
    assert made["template"]["retry"]["maximum_attempts"] >= 1
    assert made["rules"]["cron"][0]["comment"] == "before work"
    assert "Europe/Zurich" in made["words"]
    assert datetime.fromisoformat(made["next_fire_at"]).minute == 0


def test_schedules_are_listed_newest_first_in_pages(member: Client) -> None:
    made = [a_schedule(member, name=f"number {place}")["id"] for place in range(3)]

    first = member.get("/v1/schedules?limit=2")
    second = member.get("/v1/schedules", query_string={"cursor": first.get_json()["next_cursor"]})

    assert [one["id"] for one in first.get_json()["items"]] == [made[2], made[1]]
    assert [one["id"] for one in second.get_json()["items"]] == [made[0]]
    assert second.get_json()["next_cursor"] is None


def test_faults_of_template_and_rules_come_in_one_answer_with_their_places(member: Client) -> None:
    body = {
        "name": "wrong",
        "template": {"type": "sleep", "config": {"seconds": "x"}},
        "rules": {"intervals": [{"every": 0}], "timezone": "Europe/Zurch"},
    }

    answer = member.post("/v1/schedules", body)

    assert (answer.status_code, answer.get_json()["code"]) == (422, "schedule.rules_invalid")
    pointers = {error["pointer"] for error in answer.get_json()["errors"]}
    assert pointers >= {"/rules/intervals/0/every", "/rules/timezone", "/template/config/seconds"}


def test_a_template_of_an_unknown_type_is_pointed_at(member: Client) -> None:
    answer = member.post("/v1/schedules", {"name": "wrong", "template": {"type": "nothing"}})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "job_type.unknown")
    assert [error["pointer"] for error in answer.get_json()["errors"]] == ["/template/type"]


BATCH = {
    "type": "batch",
    "payloads": [{"type": "echo", "config": {"value": 1}, "name": "first"}],
    "max_concurrency": 2,
    "labels": {"team": "data"},
}
PIPELINE = {
    "type": "pipeline",
    "name": "nightly",
    "stages": [{"name": "one", "type": "echo"}, {"name": "two", "type": "echo", "depends_on": ["one"]}],
    "failure_strategy": "retry",
    "stage_retries": 2,
}


@pytest.mark.feature("S3-01")
@pytest.mark.parametrize("template", [BATCH, PIPELINE], ids=["batch", "pipeline"])
def test_a_template_of_a_family_is_shown_as_it_can_be_sent_and_makes_one(
    member: Client, template: dict[str, Any]
) -> None:
    made = a_schedule(member, template=template)

    again = a_schedule(member, template=made["template"])
    job = member.post(f"/v1/schedules/{made['id']}:trigger").get_json()

    assert made["template"] == again["template"]
    assert made["template"].items() >= {key: template[key] for key in template.keys() - {"payloads", "stages"}}.items()
    children = member.get(f"/v1/jobs/{job['id']}/children").get_json()["items"]
    assert (job["type"], job["labels"]) == (template["type"], template.get("labels", {}))
    assert [child["name"] for child in children] == (["first"] if template is BATCH else ["one", "two"])


@pytest.mark.parametrize(
    ("template", "pointer"),
    [
        ({**BATCH, "payloads": []}, "/template/payloads"),
        ({**BATCH, "payloads": [{"type": "echo"}] * 1001}, "/template/payloads"),
        ({**BATCH, "payloads": [{"type": "echo"}, {"type": "nothing"}]}, "/template/payloads/1/type"),
        ({**BATCH, "payloads": [{"type": "batch"}]}, "/template/payloads/0/type"),
        ({**BATCH, "payloads": [{"type": "sleep", "config": {"seconds": "x"}}]}, "/template/payloads/0/config/seconds"),
        ({**BATCH, "payloads": [{"type": "echo"}] * 2, "max_payloads": 1}, "/template/payloads/1"),
        ({**BATCH, "max_concurrency": 0}, "/template/max_concurrency"),
        ({**BATCH, "run_after": "2030-01-01T00:00:00Z"}, "/template/run_after"),
        ({**BATCH, "config": {}}, "/template/config"),
        ({**PIPELINE, "stages": [{"name": "one", "type": "nothing"}]}, "/template/stages/0/type"),
        (
            {**PIPELINE, "stages": [{"name": "one", "type": "echo", "depends_on": ["two"]}]},
            "/template/stages/0/depends_on/0",
        ),
        ({"type": "pipeline", "stages": PIPELINE["stages"]}, "/template/name"),
        ({"type": "echo", "payloads": []}, "/template/payloads"),
        ({"type": ["batch"]}, "/template/type"),
        ("batch", "/template"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)
def test_a_template_that_could_not_be_submitted_is_pointed_at(member: Client, template: Any, pointer: str) -> None:
    answer = member.post("/v1/schedules", {"name": "wrong", "template": template})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.get_json()["errors"]] == [pointer]


@pytest.mark.feature("S3-07")
def test_an_edit_changes_the_jobs_to_come_and_not_those_made(member: Client) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"
    before = member.post(f"{path}:trigger").get_json()
    template = {"type": "echo", "config": {"value": 2}}

    changed = member.call("PATCH", path, json={"template": template}, headers={"If-Match": '"1"'})
    after = member.post(f"{path}:trigger").get_json()

    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert member.get(f"/v1/jobs/{before['id']}").get_json()["config"] == {"value": 1}
    assert after["config"] == {"value": 2}
    assert (before["priority"], after["priority"]) == ("high", "normal")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("stale", ['"1"', "", '"x", W/"7"'])
def test_a_change_of_a_version_that_is_past_is_412_and_changes_nothing(member: Client, method: str, stale: str) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"
    body = {"json": {"name": "mine"}} if method == "PATCH" else {}
    member.call("PATCH", path, json={"name": "theirs"})

    answer = member.call(method, path, headers={"If-Match": stale}, **body)

    assert (answer.status_code, answer.get_json()["code"]) == (412, "schedule.changed")
    assert answer.get_json()["version"] == 2
    assert member.get(path).get_json()["name"] == "theirs"


@pytest.mark.parametrize("current", ['"1"', 'W/"1"', "*", '"0", "1"'])
def test_a_change_of_the_current_version_is_made(member: Client, current: str) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"

    answer = member.call("PATCH", path, json={"name": "mine"}, headers={"If-Match": current})

    assert (answer.status_code, answer.get_json()["name"], answer.get_json()["version"]) == (200, "mine", 2)


@pytest.mark.feature("S3-17")
def test_a_trigger_of_a_paused_schedule_is_409(member: Client) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"
    paused = member.post(f"{path}:pause").get_json()

    answer = member.post(f"{path}:trigger")

    assert (paused["paused"], paused["next_fire_at"]) == (True, None)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "schedule.paused")
    assert answer.mimetype == "application/problem+json"
    assert member.get(f"{path}/jobs").get_json()["items"] == []


@pytest.mark.feature("S3-15")
def test_resuming_shows_the_next_fire(member: Client) -> None:
    made = a_schedule(member)
    path = f"/v1/schedules/{made['id']}"
    member.post(f"{path}:pause")

    resumed = member.post(f"{path}:resume").get_json()

    assert (resumed["paused"], resumed["next_fire_at"]) == (False, made["next_fire_at"])


@pytest.mark.parametrize(("query", "paused"), [("", True), ("?runs=false", False)])
def test_pausing_pauses_the_jobs_that_are_not_over_unless_told_not_to(member: Client, query: str, paused: bool) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"
    job = member.post(f"{path}:trigger").get_json()

    member.post(f"{path}:pause{query}")

    assert member.get(f"/v1/jobs/{job['id']}").get_json()["paused"] is paused


@pytest.mark.feature("S3-08", "S3-16")
def test_each_trigger_makes_a_job_and_leaves_the_timetable_as_it_is(member: Client) -> None:
    made = a_schedule(member)
    path = f"/v1/schedules/{made['id']}"

    answers = [member.post(f"{path}:trigger") for _ in range(3)]

    jobs = [answer.get_json()["id"] for answer in answers]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert answers[0].headers["Location"] == f"/v1/jobs/{jobs[0]}"
    first = member.get(f"{path}/jobs?limit=2").get_json()
    second = member.get(f"{path}/jobs", query_string={"cursor": first["next_cursor"]}).get_json()
    assert [job["id"] for job in first["items"] + second["items"]] == jobs[::-1]
    assert {job["schedule_id"] for job in first["items"]} == {made["id"]}
    assert member.get(path).get_json() == made


@pytest.mark.feature("S2-83", "S2-84")
def test_a_preview_tells_rules_in_words_and_instants(member: Client) -> None:
    body = {"rules": {"cron": "0 2 * * *", "timezone": "America/New_York"}, "count": 5}

    preview = member.post("/v1/schedules:preview", body).get_json()
    of_one = member.get(f"/v1/schedules/{a_schedule(member, rules=body['rules'])['id']}:preview").get_json()

    assert preview == of_one
    assert preview["words"] == "at 02:00:00 every day, America/New_York"
    assert {datetime.fromisoformat(fire["local"]).hour for fire in preview["fires"]} <= {2, 3}
    instants = [datetime.fromisoformat(fire["at"]) for fire in preview["fires"]]
    assert len(instants) == 5
    gaps = {later - earlier for earlier, later in pairwise(instants)}
    assert gaps <= {timedelta(hours=hours) for hours in (23, 24, 25)}


def test_a_preview_of_rules_that_cannot_be_used_is_422_with_the_place(member: Client) -> None:
    answer = member.post("/v1/schedules:preview", {"rules": {"cron": ["0 2 * * *", "0 0 31 2 *"]}})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.get_json()["errors"]] == ["/rules/cron/1"]


@pytest.mark.feature("S3-32")
def test_rules_of_null_run_on_demand(member: Client) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"

    changed = member.call("PATCH", path, json={"rules": None}).get_json()

    assert (changed["words"], changed["next_fire_at"]) == ("on demand", None)


def test_a_deleted_schedule_is_gone_and_its_jobs_stay(member: Client) -> None:
    path = f"/v1/schedules/{a_schedule(member)['id']}"
    job = member.post(f"{path}:trigger").get_json()

    answers = [member.delete(path), member.delete(path), member.get(path), member.get(f"{path}/jobs")]

    assert [answer.status_code for answer in answers] == [204, 404, 404, 404]
    assert member.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_another_tenants_schedule_is_404_whatever_is_asked(member: Client, stranger: Client) -> None:
    made = a_schedule(member)
    paths = [f"/v1/schedules/{one}" for one in (made["id"], uuid4())]

    answers = [
        stranger.call(method, f"{path}{verb}", **({"json": {}} if method == "PATCH" else {}))
        for path in paths
        for method, verb in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", ":trigger"), ("POST", ":pause")]
    ]

    assert {(answer.status_code, answer.get_json()["code"]) for answer in answers} == {(404, "schedule.not_found")}
    assert stranger.get("/v1/schedules").get_json()["items"] == []
    assert member.get(paths[0]).get_json() == made
