"""Errors that no route raises on purpose: each is a problem document that gives nothing away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread, Timer
from typing import Any

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import Conflict, ImATeapot, RequestEntityTooLarge, ServiceUnavailable

from app.bootstrap import Services
from app.broker.ended import RedisEnded
from app.domain.access import Role
from app.domain.lifecycle import JobState
from app.factory import create_app
from app.persistence import job_lists
from app.persistence.sessions import Sessions
from app.services.places import Places
from app.services.waits import Waits
from config.settings import Settings
from tests.factories import a_control, a_request, a_service
from tests.integration.conftest import Client


def _lost() -> Exception:
    return OperationalError("SELECT", {}, psycopg2.OperationalError("gone"), connection_invalidated=True)


class _Coded(psycopg2.ProgrammingError):
    """An error with a SQLSTATE, as the server sends it."""

    pgcode = "00000"


def _server_said(code: str) -> Exception:
    original = type("Said", (_Coded,), {"pgcode": code})("the server said so")
    return ProgrammingError("SELECT", {}, original)


@pytest.fixture
def own_app(settings: Settings, web_services: Services) -> Flask:
    """An application that a test may add to."""
    return create_app(settings, web_services)


def _nested() -> Exception:
    return RecursionError("maximum recursion depth exceeded")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (lambda: ZeroDivisionError("secret"), 500, "internal.error"),
        (lambda: _server_said("42P01"), 500, "internal.error"),
        (lambda: _server_said("57014"), 503, "service.database_unavailable"),
        (lambda: _server_said("53300"), 503, "service.database_unavailable"),
        (lambda: _server_said("40P01"), 503, "service.database_unavailable"),
        (_lost, 503, "service.database_unavailable"),
        (lambda: PoolTimeoutError("QueuePool limit reached"), 503, "service.database_unavailable"),
        (_nested, 400, "request.too_deep"),
        (RequestEntityTooLarge, 413, "request.too_large"),
        (Conflict, 400, "request.malformed"),
        (ImATeapot, 400, "request.malformed"),
        (ServiceUnavailable, 500, "internal.error"),
    ],
)
def test_whatever_goes_wrong_is_a_problem_that_gives_nothing_away(
    own_app: Flask, member: Client, error: Callable[[], Exception], status: int, code: str
) -> None:
    def view() -> str:
        raise error()

    own_app.add_url_rule("/v1/broken", view_func=view)

    answer = Client(own_app, member.key).get("/v1/broken")

    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert answer.mimetype == "application/problem+json"
    assert "secret" not in answer.text
    assert (answer.headers.get("Retry-After") == "2") == (status == 503)


def test_what_nobody_expected_is_logged_with_its_path(
    own_app: Flask, member: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def view() -> str:
        raise ZeroDivisionError("division by zero")

    own_app.add_url_rule("/v1/broken", view_func=view)

    Client(own_app, member.key).get("/v1/broken")

    (record,) = [one for one in caplog.records if one.message == "web.unexpected"]
    assert vars(record)["path"] == "/v1/broken"
    assert record.exc_info is not None


@pytest.mark.parametrize("header", ["Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer hk_short", ""])
def test_an_authorization_that_holds_no_key_is_401(nobody: Client, header: str) -> None:
    answer = nobody.get("/v1/jobs", headers={"Authorization": header})

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="haulier"')


def test_a_bearer_token_works_like_the_key_header(member: Client, nobody: Client) -> None:
    answer = nobody.get("/v1/jobs", headers={"Authorization": f"bearer  {member.key}"})

    assert answer.status_code == 200


@pytest.mark.feature("S4-61")
def test_a_key_past_its_end_is_401_in_the_words_of_a_wrong_one(web_services: Services, nobody: Client) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=1)
    key, _ = web_services.keys.create("default", Role.MEMBER, created_by="tests", expires_at=ended)

    expired = nobody.get("/v1/jobs", headers={"X-API-Key": key})
    wrong = nobody.get("/v1/jobs", headers={"X-API-Key": key[:-1] + ("a" if key[-1] != "a" else "b")})

    assert (expired.status_code, wrong.status_code) == (401, 401)
    assert {**expired.get_json(), "trace_id": None} == {**wrong.get_json(), "trace_id": None}


@pytest.mark.feature("S4-58")
def test_a_revoked_key_is_forgotten_by_the_process_that_revoked_it(web_services: Services, nobody: Client) -> None:
    key, record = web_services.keys.create("default", Role.MEMBER, created_by="tests")
    before = nobody.get("/v1/jobs", headers={"X-API-Key": key})

    web_services.keys.revoke("default", record.id)

    after = nobody.get("/v1/jobs", headers={"X-API-Key": key})
    assert (before.status_code, after.status_code) == (200, 401)


@pytest.mark.parametrize("body", ['{"type": "echo", "config": {"value": "\\u0000"}}', '["\\ud800"]'])
def test_text_that_postgres_cannot_hold_is_400_before_any_view(member: Client, body: str) -> None:
    answer = member.post("/v1/jobs", data=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "request.unstorable_text")


def test_a_body_that_is_no_json_is_told_so_by_the_view(member: Client) -> None:
    answer = member.post("/v1/jobs", data='{"\\u0000": ', headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.get_json()["code"] == "request.malformed"
    assert answer.get_json()["detail"] == "the body is not valid JSON: Expecting value: line 1 column 12 (char 11)"


@pytest.mark.parametrize(
    ("path", "body", "pointer", "expected"),
    [
        (
            "/v1/uploads",
            {"filename": "a", "size": 3},
            "/size",
            "expected one of filename, size_bytes, parts, content_type",
        ),
        ("/v1/tables/contacts/records:upsert", {"records": []}, "/records", "rows"),
        ("/v1/jobs:batch", {"jobs": [{"type": "echo", "conf": {}}]}, "/jobs/0/conf", ", config"),
    ],
)
def test_a_field_that_is_unknown_is_answered_with_those_there_are(
    member: Client, path: str, body: dict[str, Any], pointer: str, expected: str
) -> None:
    answer = member.post(path, body)

    said = {one["pointer"]: one["detail"] for one in answer.get_json()["errors"]}
    assert answer.status_code == 422
    assert said[pointer].startswith("there is no such field; expected one of")
    assert expected in said[pointer]


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ([], "", "expected an object, got an array"),
        ({"type": 5}, "/type", "expected a string, got 5"),
        ({"config": []}, "/config", "expected an object, got an array"),
        ({"labels": "a"}, "/labels", "expected an object, got 'a'"),
        ({"depends_on": ["x" * 500]}, "/depends_on/0", "expected a UUID, got 'xxxxxxx"),
        ({"run_after": "now"}, "/run_after", "expected a date and time such as 2024-05-31T12:30:00Z, got 'now'"),
        ({"priority": "hihg"}, "/priority", "Must be one of: high, normal, low, got 'hihg'"),
        ({"timeout_s": -1}, "/timeout_s", "Must be greater than 0 and less than or equal to 31536000, got -1"),
        ({"timeout_s": "soon"}, "/timeout_s", "expected a number, got 'soon'"),
        ({"concurrency_key": "k" * 300}, "/concurrency_key", "Length must be between 1 and 255, got 300"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_told_with_what_was_expected(
    member: Client, body: Any, pointer: str, said: str
) -> None:
    answer = member.call("POST", "/v1/jobs", json={"type": "echo", **body} if isinstance(body, dict) else body)

    faults = {one["pointer"]: one["detail"] for one in answer.get_json()["errors"]}
    assert (answer.status_code, faults[pointer][: len(said)]) == (422, said)


def test_an_argument_that_does_not_fit_is_told_with_what_was_expected(member: Client) -> None:
    answer = member.get("/v1/jobs?limit=many&state=done")

    faults = {one["pointer"]: one["detail"] for one in answer.get_json()["errors"]}
    assert faults["?limit"] == "expected a whole number, got 'many'"
    assert faults["?state/0"].endswith("cancelled, got 'done'")


def test_a_body_that_is_not_said_to_be_json_is_told_so(member: Client) -> None:
    answer = member.post("/v1/jobs", data='{"type": "echo"}', headers={"Content-Type": "text/plain"})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "request.invalid")
    assert answer.get_json()["hint"] == "Send the body with Content-Type: application/json, got text/plain."


@pytest.mark.parametrize(
    ("config", "pointer", "said"),
    [
        ({"delimeter": ";"}, "/config/delimeter", "there is no such option; the nearest is 'delimiter', got ';'"),
        ({"source": {"file": 1}}, "/config/source/file", "there is no such option, got 1"),
        ({"source": "a.csv"}, "/config/source", "expected an object, got 'a.csv'"),
        ({"delimiter": "||"}, "/config/delimiter", "expected auto or one ASCII character, not a letter"),
        ({"rules": [{"rule": "requird"}]}, "/config/rules/0/rule", "expected one of 'required', 'length'"),
        ({"mapping": {"a/b": "nmae"}}, "/config/mapping/a~1b", "'nmae' is no column of 'contacts'."),
    ],
    ids=["option", "inner option", "object", "value", "kind", "mapping"],
)
def test_a_config_that_does_not_fit_says_what_was_expected(
    member: Client, config: dict[str, Any], pointer: str, said: str
) -> None:
    answer = member.post("/v1/jobs", {"type": "import", "config": {"source": {"text": "a\n1\n"}, **config}})

    [first, *_] = answer.get_json()["errors"]
    assert (answer.status_code, answer.get_json()["code"]) == (422, "job.config_invalid")
    assert (first["pointer"], first["detail"][: len(said)]) == (pointer, said)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "A" * 23])
def test_a_cursor_that_this_server_never_gave_is_400(member: Client, cursor: str) -> None:
    answer = member.get("/v1/jobs", query_string={"cursor": cursor})

    assert (answer.status_code, answer.get_json()["code"]) == (400, "request.bad_cursor")


def test_an_instant_beyond_the_calendar_is_422_with_its_pointer(member: Client) -> None:
    answer = member.post("/v1/jobs", {"type": "echo", "run_after": "0001-01-01T00:00:00+14:00"})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == "/run_after"


def test_the_viewer_can_be_turned_off(web_services: Services) -> None:
    hidden = web_services.settings.model_copy(update={"openapi_viewer": False})
    client = Client(create_app(hidden, replace(web_services, settings=hidden)), None)

    viewer, document = client.get("/docs"), client.get("/openapi.json")

    assert (viewer.status_code, document.status_code) == (404, 200)


@pytest.mark.feature("S2-62")
def test_jobs_read_at_once_say_whether_all_ended_and_all_succeeded(member: Client, sessions: Sessions) -> None:
    ids = [member.post("/v1/jobs", {"type": "echo"}).get_json()["id"] for _ in range(2)]

    waiting = member.post("/v1/jobs:batchGet", {"ids": ids}).get_json()
    for job_id in ids:
        member.post(f"/v1/jobs/{job_id}:cancel")
    over = member.post("/v1/jobs:batchGet", {"ids": ids}).get_json()

    assert (waiting["all_terminal"], waiting["all_succeeded"]) == (False, False)
    assert (over["all_terminal"], over["all_succeeded"]) == (True, False)


def test_a_wait_outlives_a_moment_without_postgres(
    settings: Settings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    ended = job_lists.ended
    failures = [_lost()]

    def first_away(*given: object) -> object:
        if failures:
            raise failures.pop()
        return ended(*given)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr(job_lists, "ended", first_away)
    a_control(sessions).cancel("default", job.id, actor="test")

    found = Waits(sessions, Places(1), RedisEnded(settings)).wait(job.id, timeout_s=20)

    assert found is not None
    assert found.state is JobState.CANCELLED
    assert "wait.poll_failed" in caplog.messages


def test_two_who_wait_for_one_job_both_hear_of_its_end(settings: Settings, sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    waits = Waits(sessions, Places(4), RedisEnded(settings))
    heard: list[JobState | None] = []

    def wait(timeout_s: float) -> None:
        found = waits.wait(job.id, timeout_s=timeout_s)
        heard.append(found.state if found else None)

    threads = [Thread(target=wait, args=(timeout_s,)) for timeout_s in (20, 20, 0.05)]
    end = Timer(0.3, lambda: a_control(sessions).cancel("default", job.id, actor="test"))
    for thread in (*threads, end):
        thread.start()
    for thread in (*threads, end):
        thread.join()

    assert heard == [None, JobState.CANCELLED, JobState.CANCELLED]


def test_the_counts_of_a_table_that_was_dropped_meanwhile_are_not_found(
    web_services: Services, admin: Client, sessions: Sessions
) -> None:
    declared = {"name": "people", "columns": [{"name": "id", "type": "integer"}], "key": ["id"]}
    assert admin.post("/v1/tables", declared).status_code == 201
    with sessions.begin() as session:
        session.execute(text("DROP TABLE t_default.people"))

    answer = admin.get("/v1/tables/people")

    assert (answer.status_code, answer.get_json()["code"]) == (404, "table.not_found")
