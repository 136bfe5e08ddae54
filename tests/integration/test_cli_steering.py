"""The commands that steer jobs, schedules, queues and limits, against the application in the test's own process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from werkzeug.serving import make_server

from app.cli.main import main
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import a_slot
from tests.integration.conftest import Client

NO_SUCH_ID = "01900000-0000-7000-8000-000000000000"
LATER = "2036-01-01T00:00:00Z"

Run = Callable[..., Result]


@pytest.fixture
def url(web_app: Flask) -> Iterator[str]:
    """The application, listening."""
    server = make_server("127.0.0.1", 0, web_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def haulier(url: str, admin: Client) -> Run:
    """Runs a command with the admin's key."""

    def run(*arguments: str, key: str | None = None) -> Result:
        variables = {"HAULIER_URL": url, "HAULIER_API_KEY": key or admin.key}
        return CliRunner(env=variables).invoke(main, arguments, catch_exceptions=False)

    return run


def a_job(client: Client, **body: Any) -> str:
    job_id: str = client.post("/v1/jobs", {"type": "echo", **body}).get_json()["id"]
    return job_id


def a_schedule(client: Client) -> str:
    body = {"name": "nightly", "template": {"type": "echo"}, "rules": {"cron": "0 2 * * *"}}
    schedule_id: str = client.post("/v1/schedules", body).get_json()["id"]
    return schedule_id


def said(result: Result) -> Any:
    """The JSON document of a command that worked."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_job_is_paused_says_why_it_waits_and_goes_on(haulier: Run, admin: Client) -> None:
    job_id = a_job(admin, run_after=LATER)

    paused = haulier("jobs", "pause", job_id)
    why = haulier("jobs", "why", job_id)
    resumed = haulier("jobs", "resume", job_id)

    assert (paused.exit_code, paused.stdout) == (0, f"Job {job_id} is paused.\n")
    assert why.stdout.startswith(f"Job {job_id} is open.\nwaits for  why\npause      the job is paused\n")
    assert resumed.stdout == f"Job {job_id} is open.\n"
    assert [one["cause"] for one in said(haulier("jobs", "why", job_id, "--json"))["reasons"]] == ["run_after"]


def test_a_job_in_its_queue_says_its_place(haulier: Run, admin: Client) -> None:
    job_id = a_job(admin)

    why = haulier("jobs", "why", job_id)

    assert "no_worker  no worker serves the queue 'small'" in why.stdout
    assert "place  1" in why.stdout


def test_a_job_is_terminated_once(haulier: Run, admin: Client) -> None:
    job_id = a_job(admin, run_after=LATER)

    first = haulier("jobs", "terminate", job_id)
    again = haulier("jobs", "terminate", job_id, "--json")

    assert (first.exit_code, first.stdout) == (0, f"Job {job_id} is cancelled.\n")
    assert (again.exit_code, json.loads(again.stdout)["error"]["code"]) == (1, "job.ended")
    assert haulier("jobs", "why", job_id).stdout == f"Job {job_id} waits for nothing: it is cancelled.\n"


def test_a_running_job_is_asked_to_stop(haulier: Run, admin: Client, sessions: Sessions) -> None:
    paused, ended = a_job(admin), a_job(admin)
    Runs(sessions).claim("small", a_slot(sessions), most=2, oldest=False)

    answers = [haulier("jobs", "pause", paused), haulier("jobs", "terminate", ended)]

    assert [answer.exit_code for answer in answers] == [0, 0]
    assert "was asked to stop at its next checkpoint" in answers[0].stdout
    assert "was asked to stop: it shares its process" in answers[1].stdout
    assert admin.get(f"/v1/jobs/{ended}").get_json()["cancel_requested"] is True


def test_a_queue_is_paused_shown_and_goes_on(haulier: Run, admin: Client) -> None:
    paused = haulier("queues", "pause", "small")
    a_job(admin)

    listed = haulier("queues", "list")
    resumed = haulier("queues", "resume", "small", "--json")

    assert paused.stdout == "Queue small is paused.\n"
    assert [line.split()[:5] for line in listed.stdout.splitlines() if line.startswith("small")] == [
        ["small", "yes", "0", "1", "0"]
    ]
    assert said(resumed)["paused"] is False


def test_the_workers_of_a_queue_are_to_have_other_slots(haulier: Run) -> None:
    given = haulier("queues", "slots", "data", "3")
    fixed = haulier("queues", "slots", "small", "3")

    assert given.stdout == "Queue data is to have 3 slots a worker.\n"
    assert {one["name"]: one["wanted_slots"] for one in said(haulier("queues", "list", "--json"))}["data"] == 3
    assert (fixed.exit_code, "workers.fixed" in fixed.stderr) == (1, True)


def test_workers_are_listed_with_what_they_hold(haulier: Run, admin: Client, sessions: Sessions) -> None:
    job_id = a_job(admin)
    Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)

    shown = haulier("workers")

    assert shown.stdout.splitlines()[1].split()[:3] == ["small", "worker", "1"]
    assert shown.stdout.rstrip().endswith(job_id)
    assert said(haulier("workers", "--json"))[0]["job_ids"] == [job_id]


def test_a_limit_is_set_listed_and_taken_away(haulier: Run) -> None:
    put = haulier("limits", "set", "key", "bank:7", "--max-concurrency", "2", "--rate", "10", "--period-s", "60")
    haulier("limits", "set", "type", "echo", "--max-concurrency", "0")

    listed = haulier("limits", "list")
    gone = haulier("limits", "delete", "key", "bank:7")

    assert put.stdout == "Limit of key bank:7: 2 at once, 10 in 60 s.\n"
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        ["key", "bank:7", "2"],
        ["type", "echo", "0"],
    ]
    assert gone.stdout == "Limit of key bank:7 is gone.\n"
    assert [one["name"] for one in said(haulier("limits", "list", "--json"))] == ["echo"]
    assert haulier("limits", "delete", "key", "bank:7").exit_code == 5


def test_a_limit_that_bounds_nothing_is_refused_with_its_place(haulier: Run) -> None:
    result = haulier("limits", "set", "key", "bank", "--json")

    assert result.exit_code == 2
    assert [one["pointer"] for one in json.loads(result.stdout)["error"]["errors"]] == ["/max_concurrency"]


def test_a_schedule_is_listed_shown_and_previewed(haulier: Run, admin: Client) -> None:
    schedule_id = a_schedule(admin)

    listed, shown = haulier("schedules", "list"), haulier("schedules", "get", schedule_id)
    preview = haulier("schedules", "preview", schedule_id, "--count", "3")

    assert listed.stdout.splitlines()[1].startswith(f"{schedule_id}  nightly  echo  no  ")
    assert "state         fires" in shown.stdout
    assert len(preview.stdout.splitlines()) == 5
    assert said(haulier("schedules", "list", "--json"))[0]["id"] == schedule_id
    assert len(said(haulier("schedules", "preview", schedule_id, "--json"))["fires"]) == 5


def test_a_schedule_is_held_goes_on_and_makes_a_job_now(haulier: Run, admin: Client) -> None:
    schedule_id = a_schedule(admin)

    paused = haulier("schedules", "pause", schedule_id)
    refused = haulier("schedules", "trigger", schedule_id)
    resumed = haulier("schedules", "resume", schedule_id)
    job = said(haulier("schedules", "trigger", schedule_id, "--json"))

    assert paused.stdout == "Schedule nightly is paused; next fire: none.\n"
    assert refused.exit_code == 1
    assert resumed.stdout.startswith("Schedule nightly fires again; next fire: 20")
    assert job["schedule_id"] == schedule_id


def test_a_schedule_is_held_without_its_jobs(haulier: Run, admin: Client) -> None:
    schedule_id = a_schedule(admin)
    job_id = said(haulier("schedules", "trigger", schedule_id, "--json"))["id"]

    alone = haulier("schedules", "pause", schedule_id, "--leave-jobs")
    alone_paused = admin.get(f"/v1/jobs/{job_id}").get_json()["paused"]
    haulier("schedules", "pause", schedule_id)

    assert (alone.exit_code, alone_paused) == (0, False)
    assert admin.get(f"/v1/jobs/{job_id}").get_json()["paused"] is True


@pytest.mark.parametrize(
    "command",
    [
        *(["jobs", verb, NO_SUCH_ID] for verb in ("why", "pause", "resume", "terminate")),
        *(["schedules", verb, NO_SUCH_ID] for verb in ("get", "pause", "resume", "trigger", "preview")),
        *(["queues", verb, "elsewhere"] for verb in ("pause", "resume")),
        ["queues", "slots", "elsewhere", "2"],
        ["batches", NO_SUCH_ID],
        ["batch-report", "--table", "nowhere"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_exit_5(haulier: Run, command: list[str]) -> None:
    assert haulier(*command).exit_code == 5


@pytest.mark.parametrize("command", [["workers"], ["limits", "list"], ["queues", "pause", "small"]], ids=" ".join)
def test_what_a_member_may_not_do_is_exit_6(haulier: Run, member: Client, command: list[str]) -> None:
    result = haulier(*command, "--json", key=member.key)

    assert (result.exit_code, json.loads(result.stdout)["error"]["status"]) == (6, 403)


@pytest.mark.feature("S2-88", "S2-89", "S2-90")
def test_an_import_takes_what_bounds_its_batches(haulier: Run, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("first_name\nAnn\n")
    bounds = ["--batch-size", "1000", "--parallel-batches", "4", "--batch-timeout-s", "30"]

    job = said(haulier("import", str(file), "--table", "contacts", *bounds, "--detach", "--json"))

    assert {name: job["config"][name] for name in ("batch_size", "parallel_batches", "batch_timeout_s")} == {
        "batch_size": 1000,
        "parallel_batches": 4,
        "batch_timeout_s": 30,
    }


def test_a_job_without_batches_and_a_table_without_imports_say_so(haulier: Run, admin: Client) -> None:
    job_id = a_job(admin)

    none, report = haulier("batches", job_id), haulier("batch-report", "--table", "contacts")

    assert none.stdout == f"Job {job_id} has no batches.\n"
    assert "Suggested: none; expected two batch sizes" in report.stdout
    assert said(haulier("batch-report", "--table", "contacts", "--json"))["suggested_batch_size"] is None
