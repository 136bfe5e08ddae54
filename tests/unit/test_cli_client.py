"""Commands against an API that is away, busy or something else, and what they print for every way a job can end."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import client as client_module
from app.cli import output, transfer, watching
from app.cli.client import Client
from app.cli.failures import CommandFailed, Exit, exit_of, said
from app.cli.main import main
from app.cli.target import state_of
from app.cli.watching import progress_text
from tests.unit.scripted_api import ScriptedApi, scripted_api

ID = "01900000-0000-7000-8000-000000000000"
JOB = f"/v1/jobs/{ID}"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    monkeypatch.setattr(client_module, "_AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr(transfer, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(watching, "_WAIT_S", 0.0)
    with scripted_api() as made:
        yield made


@pytest.fixture
def haulier(api: ScriptedApi) -> Callable[..., Result]:
    def run(*arguments: str, given: str | None = None) -> Result:
        runner = CliRunner(env={"HAULIER_URL": api.url, "HAULIER_API_KEY": "hk_key"})
        return runner.invoke(main, arguments, input=given, catch_exceptions=False)

    return run


def a_job(**changes: Any) -> dict[str, Any]:
    """A job as the API tells it."""
    progress = {"percent": 0.0, "rows_done": 0, "rows_per_s": None, "eta": None, "stage": None}
    return {
        "id": ID,
        "type": "echo",
        "state": "completed",
        "outcome": "success",
        "paused": False,
        "progress": {**progress, **changes.pop("progress", {})},
        "attempts": 1,
        "rescues": 0,
        "retry": {"maximum_attempts": 3},
        "counters": {},
        "error": None,
        "cancel_reason": None,
        "duration_ms": None,
        "run_after": None,
        "created_at": "2026-11-01T00:00:00Z",
        "created_by": "key:x",
        "started_at": None,
        "finished_at": None,
        "clone_of": None,
        "config": {},
        **changes,
    }


BUSY = (503, {"code": "service.unavailable", "detail": "away", "status": 503})


def test_a_server_that_answered_before_is_waited_for(api: ScriptedApi) -> None:
    api.answer("/v1/tables", (200, {"items": []}), BUSY, BUSY, (200, {"items": [1]}))
    client = Client(api.url, "hk_key")

    first = client.get("/v1/tables")
    second = client.get("/v1/tables")

    assert (first, second) == ({"items": []}, {"items": [1]})


def test_a_server_that_stays_away_is_given_up(api: ScriptedApi) -> None:
    api.answer("/v1/tables", BUSY)

    with pytest.raises(CommandFailed) as ended:
        Client(api.url, "hk_key").get("/v1/tables")

    assert ended.value.exit_code == Exit.SERVER
    assert len(api.asked) == 3


def test_a_fault_of_the_server_and_a_refusal_are_not_asked_for_again(api: ScriptedApi) -> None:
    api.answer("/a", (500, {"code": "internal.error", "detail": "x", "status": 500}))
    api.answer("/b", (409, {"code": "job.ended", "detail": "x", "status": 409}))
    client = Client(api.url, "hk_key")

    for path in ("/a", "/b"):
        with pytest.raises(CommandFailed):
            client.get(path)

    assert len(api.asked) == 2


def test_a_submit_is_sent_again_only_under_an_idempotency_key(api: ScriptedApi) -> None:
    api.answer("/v1/jobs", BUSY, BUSY, (202, {"id": ID}))
    client = Client(api.url, "hk_key")

    with pytest.raises(CommandFailed):
        client.post("/v1/jobs", {})
    made = client.post("/v1/jobs", {}, idempotency_key="k")

    assert made == {"id": ID}
    assert len(api.asked) == 3


def test_what_is_no_haulier_is_told_so(api: ScriptedApi) -> None:
    api.answer("/v1/tables", (200, b"<html>"))

    with pytest.raises(CommandFailed, match="something that is not JSON"):
        Client(api.url, "hk_key").get("/v1/tables")


def test_a_listing_is_read_page_by_page_as_far_as_was_asked(api: ScriptedApi) -> None:
    api.answer("/v1/jobs", (200, {"items": [1, 2], "next_cursor": "c"}), (200, {"items": [3, 4], "next_cursor": "d"}))
    client = Client(api.url, "hk_key")

    found = list(client.pages("/v1/jobs", most=4))

    assert found == [1, 2, 3, 4]
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Exit.USAGE),
        (413, Exit.USAGE),
        (422, Exit.USAGE),
        (401, Exit.AUTH),
        (403, Exit.AUTH),
        (404, Exit.NOT_FOUND),
        (409, Exit.FAILED),
        (429, Exit.FAILED),
        (500, Exit.SERVER),
        (503, Exit.SERVER),
    ],
)
def test_every_status_has_the_exit_code_of_its_kind(status: int, code: Exit) -> None:
    assert exit_of(status) == code


def test_a_problem_is_told_with_its_faults_and_its_hint() -> None:
    told = said({"code": "a.b", "detail": "no", "errors": [{"pointer": "", "detail": "bad"}], "hint": "Do this."})

    assert told.splitlines() == ["a.b: no", "  (body): bad", "  hint: Do this."]


def test_without_a_key_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"HAULIER_URL": "http://127.0.0.1:9", "HAULIER_API_KEY": None})

    result = runner.invoke(main, ["jobs", "list"])

    assert result.exit_code == Exit.AUTH
    assert "haulier keys create" in result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8600", "nonsense", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_an_address_that_is_none_is_told_before_anything_is_sent(url: str) -> None:
    result = CliRunner(env={"HAULIER_URL": url, "HAULIER_API_KEY": "hk_key"}).invoke(main, ["jobs", "list"])

    assert result.exit_code == Exit.USAGE
    assert f"an address like http://127.0.0.1:8600, got {url!r}" in result.stderr


@pytest.mark.parametrize("key", ["hk_ключ", "hk_a\nb"])
def test_a_key_that_no_header_can_bear_is_told_in_words(key: str) -> None:
    runner = CliRunner(env={"HAULIER_URL": "http://127.0.0.1:9", "HAULIER_API_KEY": key})

    result = runner.invoke(main, ["jobs", "list"])

    assert result.exit_code == Exit.AUTH
    assert "printable characters of ASCII" in result.stderr


def test_a_state_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("{")

    with pytest.raises(CommandFailed, match=r"up\.json cannot be read") as ended:
        state_of(tmp_path)

    assert ended.value.exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("job", "exit_code", "says"),
    [
        (a_job(outcome="partial"), 3, ""),
        (a_job(state="cancelled", cancel_reason="timeout"), 4, "was cancelled (timeout)"),
        (a_job(state="cancelled"), 4, "was cancelled (user)"),
        (
            a_job(state="failed", error={"code": "a.b", "message": "no", "hint": "Do this."}),
            1,
            "a.b: no\n  hint: Do this.",
        ),
        (a_job(state="open", paused=True), 1, "is paused: on request"),
        (a_job(state="open", paused=True, error={"message": "too bad"}), 1, "is paused: too bad"),
    ],
)
def test_every_end_of_a_job_has_an_exit_code_and_a_sentence(
    api: ScriptedApi, haulier: Callable[..., Result], job: dict[str, Any], exit_code: int, says: str
) -> None:
    api.answer(JOB, (200, job))

    result = haulier("jobs", "watch", ID)

    assert result.exit_code == exit_code
    assert says in result.stderr


@pytest.mark.feature("S2-62")
@pytest.mark.parametrize(
    ("ends", "exit_code"),
    [(("completed", "completed"), 0), (("completed", "cancelled"), 4), (("failed", "cancelled"), 1)],
)
def test_a_wait_for_several_jobs_is_a_success_when_all_of_them_are(
    api: ScriptedApi, haulier: Callable[..., Result], ends: tuple[str, str], exit_code: int
) -> None:
    api.answer(JOB, *((200, a_job(state=state)) for state in ends))

    result = haulier("jobs", "wait", ID, ID)

    assert result.exit_code == exit_code
    assert all(state in result.stdout for state in ends)


def test_a_watch_goes_on_when_every_waiting_place_is_taken(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    full = (503, {"code": "service.too_many_waits", "detail": "full", "status": 503})
    api.answer(JOB, full, (200, a_job(state="running")), full, (200, a_job()))

    result = haulier("jobs", "watch", ID)

    assert result.exit_code == 0


def test_a_watch_that_is_broken_off_says_that_the_job_goes_on(
    api: ScriptedApi, haulier: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "_look", interrupted)

    result = haulier("jobs", "watch", ID)

    assert result.exit_code == 1
    assert f"The job goes on. Watch it again: haulier jobs watch {ID}" in result.stderr


def test_on_a_terminal_progress_is_a_bar(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching.sys.stderr, "isatty", lambda: True, raising=False)

    with watching.showing("import") as show:
        show(None, "waiting")
        show(50.0, "half of it")
        show(100.0, "all of it")

    assert "all of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (a_job(state="queued"), "queued"),
        (a_job(state="running", progress={"rows_done": 1_200, "rows_per_s": 300.4}), "1,200 rows, 300 rows/s"),
        (a_job(state="open", paused=True), "open, paused"),
        (a_job(duration_ms=61_000), "completed, in 1 min 1 s"),
    ],
)
def test_a_line_tells_state_rows_and_rate(job: dict[str, Any], text: str) -> None:
    assert progress_text(job) == text


def test_the_time_left_is_told_once_it_is_worth_something() -> None:
    eta = (datetime.now(UTC) + timedelta(seconds=90)).isoformat()

    early = progress_text(a_job(state="running", progress={"rows_done": 5, "percent": 1.0, "eta": eta}))
    later = progress_text(a_job(state="running", progress={"rows_done": 5, "percent": 50.0, "eta": eta}))

    assert early == "5 rows"
    assert later.startswith("5 rows, 1 min ")
    assert later.endswith(" left")


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_500_000, "2.5 MB"), (10**9, "1.0 GB"), (10**13, "10.0 TB")],
)
def test_sizes_have_a_unit_that_a_person_reads(bytes_: int, text: str) -> None:
    assert output.size(bytes_) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.26, "1.3 s"), (125, "2 min 5 s"), (7_300, "2 h 1 min")])
def test_durations_are_said_as_a_person_does(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_job_is_shown_with_what_there_is_to_say(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    error = {"code": "a.b", "message": "no\x1b[31m"}
    api.answer(JOB, (200, a_job(state="open", paused=True, error=error, rescues=2, counters={"failed": 3})))

    result = haulier("jobs", "get", ID)

    assert "open (paused)" in result.stdout
    assert "a.b: no\\x1b[31m" in result.stdout
    assert "failed rows  3" in result.stdout


AN_ATTEMPT = {
    "attempt": 1,
    "outcome": "retrying",
    "started_at": "2026-11-01T00:00:00Z",
    "ended_at": None,
    "rows_done": 5,
    "worker_name": "data@host",
    "error": {"code": "s3.away", "message": "S3 is away"},
    "reason": None,
}


@pytest.mark.parametrize(
    ("arguments", "path", "answer", "says"),
    [
        (["jobs", "cancel", ID], f"{JOB}:cancel", a_job(state="running"), "was asked to stop"),
        (["jobs", "cancel", ID, "--json"], f"{JOB}:cancel", a_job(), '"state": "completed"'),
        (["jobs", "retry", ID, "--json"], f"{JOB}:retry", a_job(state="open"), '"state": "open"'),
        (["jobs", "clone", ID], f"{JOB}:clone", a_job(state="queued"), f"Job {ID} is queued."),
        (["jobs", "clone", ID, "--json"], f"{JOB}:clone", a_job(state="queued"), '"state": "queued"'),
        (["jobs", "replay", ID], f"{JOB}:replay", a_job(state="queued"), f"Job {ID} is queued."),
        (["jobs", "replay", ID, "--code", "a.b", "--json"], f"{JOB}:replay", a_job(), '"outcome": "success"'),
        (["jobs", "revert", ID], f"{JOB}:revert", a_job(state="queued"), f"Job {ID} is queued."),
        (["jobs", "get", ID, "--json"], JOB, a_job(), '"outcome": "success"'),
        (["jobs", "attempts", ID], f"{JOB}/attempts", {"items": [AN_ATTEMPT]}, "S3 is away"),
        (["jobs", "attempts", ID, "--json"], f"{JOB}/attempts", {"items": [AN_ATTEMPT]}, '"outcome": "retrying"'),
        (["jobs", "failed-rows", ID], f"{JOB}/failed-records", {"items": [], "next_cursor": None}, "No row failed."),
        (["tables", "list", "--json"], "/v1/tables", {"items": [{"name": "people"}]}, '"name": "people"'),
    ],
)
def test_a_command_prints_what_the_server_said(
    api: ScriptedApi, haulier: Callable[..., Result], arguments: list[str], path: str, answer: Any, says: str
) -> None:
    api.answer(path, (200, answer))

    result = haulier(*arguments)

    assert result.exit_code == 0
    assert says in result.stdout


def test_failed_rows_go_to_standard_output_when_asked(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    api.answer(f"{JOB}/failed-records", (200, b"line,code\r\n3,a.b\r\n"))

    result = haulier("jobs", "failed-rows", ID, "--csv", "-")

    assert result.stdout_bytes == b"line,code\r\n3,a.b\r\n"


def test_rows_whose_text_was_not_kept_or_is_no_text_are_shown_so(
    api: ScriptedApi, haulier: Callable[..., Result]
) -> None:
    rows = [
        {"line": 2, "code": "a", "message": "m", "raw": None, "raw_is_base64": False},
        {"line": 3, "code": "a", "message": "m", "raw": "x" * 100, "raw_is_base64": False},
        {"line": 4, "code": "a", "message": "m", "raw": "AAAA", "raw_is_base64": True},
    ]
    api.answer(f"{JOB}/failed-records", (200, {"items": rows, "next_cursor": None}))

    result = haulier("jobs", "failed-rows", ID)

    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == ["kept)", "x" * 60 + "…", "base64:AAAA"]


def test_a_replay_takes_corrections_from_a_file(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "mended.csv").write_bytes(b"\xef\xbb\xbfline,name\n3,one\n")
    api.answer(f"{JOB}:replay", (200, a_job(state="queued")))

    result = haulier("jobs", "replay", ID, "--corrections", str(tmp_path / "mended.csv"))

    assert result.exit_code == 0
    assert [body for *_, body in api.asked] == [{"corrections": {"text": "line,name\n3,one\n"}}]


def test_a_table_is_dropped_when_it_was_meant(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    api.answer("/v1/tables/people", (204, None))

    kept = haulier("tables", "drop", "people", given="n\n")
    dropped = haulier("tables", "drop", "people", given="y\n")
    as_json = haulier("tables", "drop", "people", "--yes", "--json")

    assert [result.exit_code for result in (kept, dropped, as_json)] == [1, 0, 0]
    assert json.loads(as_json.stdout) == {"dropped": "people"}
    assert [method for method, _, _ in api.asked] == ["DELETE", "DELETE"]


def test_a_table_is_shown_with_the_rules_of_its_columns(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    columns = [
        {"name": "id", "type": "bigint", "required": True, "max_length": None, "format": None},
        {"name": "mail", "type": "text", "required": False, "max_length": 80, "format": "email"},
    ]
    table = {"name": "people", "key": ["id"], "bytes_on_disk": 8_192, "valid_indexes": [],
             "missing_indexes": [], "version": 1, "built_in": False, "columns": columns}  # fmt: skip
    api.answer("/v1/tables/people", (200, table))
    api.answer("/v1/tables/people/records:count", (200, {"count": 12_345}))

    shown = haulier("tables", "show", "people")
    as_json = haulier("tables", "show", "people", "--json")

    assert "rows      12,345" in shown.stdout
    assert [line.split() for line in shown.stdout.splitlines()[-2:]] == [
        ["id", "bigint", "required"],
        ["mail", "text", "at", "most", "80", "characters,", "email"],
    ]
    assert json.loads(as_json.stdout)["rows"] == 12_345


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_declaration_that_is_no_object_is_refused_before_it_is_sent(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path, text: str
) -> None:
    (tmp_path / "t.json").write_text(text)

    result = haulier("tables", "create", str(tmp_path / "t.json"))

    assert (result.exit_code, api.asked) == (Exit.USAGE, [])
    assert "usage.not_json" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--where", "@/nothing/here"], "/nothing/here cannot be read"),
        (["--where", "[1]"], "expected a JSON object"),
        (["--order-by", "id:up"], "expected COLUMN, COLUMN:asc or COLUMN:desc, got 'id:up'"),
        (["--order-by", ":asc"], "expected COLUMN"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused_before_it_is_sent(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path, options: list[str], says: str
) -> None:
    result = haulier("export", "--table", "t", "--columns", "a", *options, "-o", str(tmp_path / "x.csv"))

    assert (result.exit_code, api.asked) == (2, [])
    assert says in result.stderr


def test_an_export_into_a_folder_that_is_not_there_is_refused_before_any_work(
    api: ScriptedApi, haulier: Callable[..., Result]
) -> None:
    result = haulier("export", "--table", "t", "-o", "/nothing/here/x.csv")

    assert (result.exit_code, api.asked) == (2, [])
    assert "there is no folder /nothing/here" in result.stderr


@pytest.mark.parametrize(
    ("artifacts", "job", "exit_code", "says"),
    [
        ([], a_job(), 5, "has no file"),
        ([], a_job(state="failed", error={"code": "vql.timeout", "message": "too long"}), 1, "vql.timeout: too long"),
    ],
)
def test_an_export_without_a_file_says_why(
    api: ScriptedApi,
    haulier: Callable[..., Result],
    tmp_path: Path,
    artifacts: list[Any],
    job: dict[str, Any],
    exit_code: int,
    says: str,
) -> None:
    api.answer("/v1/jobs", (202, {"id": ID}))
    api.answer(JOB, (200, job))
    api.answer(f"{JOB}/artifacts", (200, {"items": artifacts}))

    result = haulier("export", "--table", "t", "--columns", "a, b,", "--limit", "5", "-o", str(tmp_path / "x.csv"))

    assert result.exit_code == exit_code
    assert says in result.stderr
    assert api.bodies("/v1/jobs")[0]["config"]["vql"] == {"select_columns": ["a", "b"], "limit": 5}
    assert list(tmp_path.iterdir()) == []


def _ticket(api: ScriptedApi, *, parts: bool = False) -> None:
    urls = [{"number": number, "url": f"{api.url}/put"} for number in (1, 2)] if parts else []
    ticket = {"id": "u", "s3_key": "k", "url": None if parts else f"{api.url}/put", "parts": urls, "part_bytes": 6}
    api.answer("/v1/uploads", (201, ticket))


def test_an_upload_is_sent_again_after_a_fault_of_the_store(api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id\n1\n2\n3\n")
    _ticket(api, parts=True)
    api.answer("/put", (503, b"SlowDown"), (200, None), (500, b"oops"), (200, None))
    api.answer("/v1/uploads/u:complete", (200, {}))

    transfer.upload(Client(api.url, "hk_key"), tmp_path / "a.csv", quiet=True)

    assert api.bodies("/put") == [b"id\n1\n2", b"id\n1\n2", b"\n3\n", b"\n3\n"]
    assert api.bodies("/v1/uploads/u:complete") == [
        {"parts": [{"number": 1, "etag": "an-etag"}, {"number": 2, "etag": "an-etag"}]}
    ]


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (503, 3)])
def test_an_upload_that_s3_refuses_ends_with_what_it_said(
    api: ScriptedApi, tmp_path: Path, status: int, tries: int
) -> None:
    (tmp_path / "a.csv").write_bytes(b"id\n")
    _ticket(api)
    api.answer("/put", (status, b"<Error>no</Error>"))

    with pytest.raises(CommandFailed, match=f"S3 answered {status}: <Error>no</Error>"):
        transfer.upload(Client(api.url, "hk_key"), tmp_path / "a.csv", quiet=True)

    assert len(api.bodies("/put")) == tries


def test_an_upload_to_nobody_ends_with_a_hint(api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    ticket = {"id": "u", "s3_key": "k", "url": "http://127.0.0.1:9/put", "parts": [], "part_bytes": None}
    api.answer("/v1/uploads", (201, ticket))

    with pytest.raises(CommandFailed, match="the connection broke: ConnectionError") as ended:
        transfer.upload(Client(api.url, "hk_key"), tmp_path / "a.csv", quiet=True)

    assert "HAULIER_S3_PUBLIC_ENDPOINT" in ended.value.problem["hint"]


@pytest.mark.parametrize("pair", ["id", "=id", "id="])
def test_a_mapping_that_is_no_pair_is_refused_before_it_is_sent(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path, pair: str
) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(gzip.compress(b"id\n"))

    result = haulier("import", str(file), "--table", "t", "--map", pair)

    assert (result.exit_code, api.asked) == (2, [])
    assert f"expected HEADER=COLUMN, got {pair!r}" in result.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_an_import_can_be_left_alone(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path, *, as_json: bool
) -> None:
    (tmp_path / "a.csv").write_bytes(b"id\n1\n")
    _ticket(api)
    api.answer("/put", (200, None))
    api.answer("/v1/jobs", (202, a_job(state="queued")))
    api.answer(f"{JOB}/result", (409, {"code": "job.wrong_state", "detail": "x", "status": 409}))
    api.answer(f"{JOB}/failed-records", (200, {"items": [], "next_cursor": None}))
    options = ["--json"] if as_json else []

    result = haulier("import", str(tmp_path / "a.csv"), "--table", "t", "--map", "nr=id", "--detach", *options)

    assert result.exit_code == 0
    assert api.bodies("/v1/jobs")[0]["config"]["mapping"] == {"nr": "id"}
    if as_json:
        assert json.loads(result.stdout)["books"] is None
    else:
        assert f"haulier jobs watch {ID}" in result.stdout


def test_books_that_do_not_balance_are_said_to(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    books = {"read": 5, "loaded": 1, "updated": 1, "unchanged": 0, "superseded": 0, "skipped": 0, "failed": 1}
    api.answer(JOB, (200, a_job(finished_at="2026-11-01T00:00:00Z")))
    api.answer(f"{JOB}/result", (200, {"data": {"books": books}}))

    result = haulier("jobs", "watch", ID)

    assert "5 read = 1 loaded + 1 updated" in result.stdout
    assert "The books do not balance: 3 rows are accounted for." in result.stderr


def test_an_unknown_command_is_refused_by_name() -> None:
    result = CliRunner().invoke(main, ["improt"])

    assert result.exit_code == 2
    assert "No such command 'improt'" in result.stderr


@pytest.mark.feature("S4-88")
def test_the_link_of_a_file_is_one_command_away(api: ScriptedApi, haulier: Callable[..., Result]) -> None:
    file = {"name": "a.csv", "kind": "export", "size_bytes": 3, "sha256": "00", "id": ID, "url": "http://s3/a?signed"}
    api.answer(f"{JOB}/artifacts", (200, {"items": [file]}))

    links = haulier("jobs", "artifacts", ID, "--links")
    table = haulier("jobs", "artifacts", ID)
    other = haulier("jobs", "download", ID, "--name", "b.csv", "-o", "b.csv")

    assert links.stdout == "http://s3/a?signed\n"
    assert "a.csv" in table.stdout
    assert "signed" not in table.stdout
    assert (other.exit_code, "It has a.csv." in other.stderr) == (5, True)


def test_an_expired_file_and_one_that_is_made_on_request_are_told_apart(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path
) -> None:
    made = {"size_bytes": None, "sha256": None, "rows": None, "content_type": "x", "s3_key": None, "state": "available"}
    log = {"name": "log.ndjson", "kind": "log", "id": ID, "url": f"{api.url}/log", **made}
    old = {**log, "name": "a.csv", "kind": "export", "url": None, "state": "expired", "expires_at": "2026-01-01"}
    api.answer(f"{JOB}/artifacts", (200, {"items": [old, log]}))
    api.answer("/log", (200, b"line\n"))

    table = haulier("jobs", "artifacts", ID)
    links = haulier("jobs", "artifacts", ID, "--links")
    fetched = haulier("jobs", "download", ID, "--name", "log.ndjson", "-o", str(tmp_path / "log"))
    expired = haulier("jobs", "download", ID, "-o", str(tmp_path / "a.csv"))

    assert "log.ndjson" in table.stdout
    assert links.stdout == f"{api.url}/log\n"
    assert (fetched.exit_code, (tmp_path / "log").read_bytes()) == (0, b"line\n")
    assert (expired.exit_code, "was kept until 2026-01-01" in expired.stderr) == (5, True)


@pytest.mark.feature("S2-70")
def test_a_log_is_followed_until_the_job_is_over(
    api: ScriptedApi, haulier: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.logs._PAUSE_S", 0.0)
    line = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "job_id": ID, "start": 1}
    first = json.dumps({**line, "event": "job.created", "position": "1.0.0"}).encode() + b"\n"
    second = json.dumps({**line, "event": "step.done", "position": "1.1.1", "rows": 5}).encode() + b"\n"
    api.answer(JOB, (200, a_job(state="running")), (200, a_job()))
    api.answer(f"{JOB}/log", (200, first), (200, second))

    said = haulier("jobs", "log", ID, "--follow")

    assert said.stdout.splitlines() == [
        "2026-01-01T00:00:00Z info    job.created",
        "2026-01-01T00:00:00Z info    step.done rows=5",
    ]


def test_an_export_of_another_format_is_another_job_type(
    api: ScriptedApi, haulier: Callable[..., Result], tmp_path: Path
) -> None:
    api.answer("/v1/jobs", (202, {"id": ID}))
    api.answer(JOB, (200, a_job()))
    api.answer(f"{JOB}/artifacts", (200, {"items": []}))
    asked = ("export", "--table", "t", "--columns", "a", "-o", str(tmp_path / "x"))

    haulier(*asked, "--format", "parquet")
    haulier(*asked, "--encrypted")

    sent = [
        (body["type"], body["config"].get("format"), body["config"]["encrypted"]) for body in api.bodies("/v1/jobs")
    ]
    assert sent == [("export", "parquet", False), ("export", "csv", True)]
