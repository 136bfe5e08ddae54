"""Errors name their trace and the job they are about, and the log's lines name the same trace."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest

from app.bootstrap import Services
from app.factory import create_app
from app.telemetry import trace
from config.settings import Settings
from tests.integration.conftest import Client

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.feature("S2-98")
def test_an_error_has_all_that_helps_to_mend_it(member: Client) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]

    body = {"config": {"value": 1}, "depends_on": "x"}
    unfit = member.post("/v1/jobs", body, headers={"traceparent": TRACEPARENT}).get_json()
    early = member.get(f"/v1/jobs/{job_id}/result", headers={"traceparent": TRACEPARENT}).get_json()

    assert {"type", "title", "status", "detail", "code", "instance", "hint", "errors"} <= unfit.keys()
    assert {"/type", "/depends_on"} <= {fault["pointer"] for fault in unfit["errors"]}
    assert (early["code"], early["job_url"]) == ("job.wrong_state", f"/v1/jobs/{job_id}")
    assert (unfit["trace_id"], early["trace_id"]) == (TRACE, TRACE)
    assert "job_url" not in unfit


@pytest.mark.feature("S2-98")
def test_an_error_links_to_no_job_that_is_not_there_for_who_asks(
    member: Client, stranger: Client, nobody: Client
) -> None:
    path = f"/v1/jobs/{member.post('/v1/jobs', {'type': 'echo'}).get_json()['id']}"

    answers = [stranger.get(path), nobody.get(path), member.get(f"/v1/jobs/{uuid4()}")]

    assert [answer.status_code for answer in answers] == [404, 401, 404]
    assert not [answer for answer in answers if "job_url" in answer.get_json()]


@pytest.mark.feature("S2-98")
@pytest.mark.parametrize("traceparent", [None, "nonsense"])
def test_a_request_without_a_trace_gets_one_of_its_own(nobody: Client, traceparent: str | None) -> None:
    headers = {"traceparent": traceparent} if traceparent else {}

    traces = [nobody.get("/v1/jobs", headers=headers).get_json()["trace_id"] for _ in range(2)]
    lost = nobody.get("/v1/no-such-path", headers={"traceparent": TRACEPARENT}).get_json()

    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in traces)
    assert len(set(traces)) == 2
    assert lost["trace_id"] == TRACE


@pytest.mark.feature("S2-98", "S2-96")
def test_the_lines_of_a_request_bear_the_trace_of_its_answer(
    capsys: pytest.CaptureFixture[str], settings: Settings, web_services: Services, member: Client
) -> None:
    app = create_app(settings, web_services)

    def broken() -> str:
        raise ZeroDivisionError

    app.add_url_rule("/v1/broken", view_func=broken)

    answer = Client(app, member.key).get("/v1/broken").get_json()

    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["trace_id"] for line in lines if line["event"] == "web.unexpected"] == [answer["trace_id"]]
    assert trace.current_id() is None


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (TRACEPARENT, TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-what-comes-later", TRACE),
        (f"{TRACEPARENT}-more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (TRACEPARENT.upper(), None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(traceparent: str | None, trace_id: str | None) -> None:
    assert trace.id_in(traceparent) == trace_id
