"""The commands as a user types them, against a stack that runs: web, engine and workers."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from app.cli import demo as demo_module
from app.cli.client import Client
from app.cli.main import COMMANDS, main
from app.cli.transfer import upload
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.runtime.stack import Stack
from tests.conftest import _folder_open_to_all

HAULIER = Path(sys.executable).with_name("haulier")
PEOPLE = {
    "name": "people",
    "columns": [
        {"name": "id", "type": "integer"},
        {"name": "name", "type": "text"},
        {"name": "country", "type": "text"},
    ],
    "key": ["id"],
}
NO_SUCH_ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def stack(postgres_binaries: Path | None) -> Iterator[Stack]:
    """Everything that a job needs, for all tests of this module."""
    stack = Stack(
        _folder_open_to_all(),
        processes=["web", "engine", "worker", "small"],
        postgres_binaries=postgres_binaries,
        throw_away=True,
    )
    stack.start()
    yield stack
    stack.remove()


@pytest.fixture(scope="module")
def stack_sessions(stack: Stack) -> Iterator[Sessions]:
    engine = open_engine(stack.stores.database_url, application_name="tests", pool_size=2)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def haulier(stack: Stack) -> Callable[..., Result]:
    """Runs a command with the stack's address and admin key in its environment."""
    variables = {"HAULIER_URL": stack.url, "HAULIER_API_KEY": stack.admin_key}

    def run(*arguments: str, **environment: str | None) -> Result:
        return CliRunner(env={**variables, **environment}).invoke(main, arguments, catch_exceptions=False)

    return run


@pytest.fixture
def people(haulier: Callable[..., Result], tmp_path: Path) -> Iterator[None]:
    """An empty table ``people``."""
    file = tmp_path / "people.json"
    file.write_text(json.dumps(PEOPLE))
    assert haulier("tables", "create", str(file)).exit_code == 0
    yield
    assert haulier("tables", "drop", "people", "--yes").exit_code == 0


def _csv(tmp_path: Path, lines: list[str], name: str = "people.csv") -> str:
    file = tmp_path / name
    file.write_text("\n".join(["id,name,country", *lines]) + "\n", encoding="utf-8")
    return str(file)


def test_every_command_explains_itself() -> None:
    explained = [CliRunner().invoke(main, [name, "--help"]) for name in COMMANDS]

    assert {result.exit_code for result in explained} == {0}
    assert all(result.stdout.startswith("Usage: ") for result in explained)


def test_an_import_tells_what_became_of_every_row(haulier: Callable[..., Result], people: None, tmp_path: Path) -> None:
    file = _csv(tmp_path, ["1,Ann,DE", "2,Bob,FR", "x,Eve,FR", "1,Anna,DE"])

    result = haulier("import", file, "--table", "people", "--key", "id")

    assert result.exit_code == 3
    assert "4 read = 2 loaded + 0 updated + 0 unchanged + 1 superseded + 0 skipped + 1 failed" in result.stdout
    assert "4     value.integer  id: expected a whole number" in result.stdout
    assert "import: 100.0 %, completed" in result.stderr


def test_an_import_of_the_same_file_again_changes_nothing(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    file = _csv(tmp_path, [f"{number},name {number},DE" for number in range(5_000)])

    first = haulier("import", file, "--table", "people", "--json")
    again = haulier("import", file, "--table", "people", "--json")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert json.loads(first.stdout)["books"]["loaded"] == 5_000
    assert json.loads(again.stdout)["books"]["unchanged"] == 5_000
    assert json.loads(again.stdout)["failed_rows"] == []


def test_an_import_takes_other_headers_delimiters_and_encodings(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    file = tmp_path / "other.csv"
    file.write_bytes("nr;wer;country;more\n7;Zoë;DE;x\n".encode("latin-1"))
    options = ["--map", "nr=id", "--map", "wer=name", "--delimiter", ";", "--encoding", "latin-1", "--ignore-unknown"]

    result = haulier("import", str(file), "--table", "people", *options)
    exported = haulier("export", "--table", "people", "-o", str(tmp_path / "out.csv"))

    assert (result.exit_code, exported.exit_code) == (0, 0)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "id,name,country\n7,Zoë,DE\n"


def test_an_import_over_its_error_budget_is_paused_and_says_why(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    file = _csv(tmp_path, ["1,Ann,DE", "x,Bob,FR", "y,Eve,FR"])

    result = haulier("import", file, "--table", "people", "--max-errors", "1")

    assert result.exit_code == 1
    assert "is paused: " in result.stderr
    assert "2 " in result.stderr.partition("is paused: ")[2].splitlines()[0]


def test_an_export_brings_the_rows_that_were_asked_for(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    haulier("import", _csv(tmp_path, ["1,Ann,DE", "2,Bob,FR", "3,Eve,DE"]), "--table", "people")
    where = tmp_path / "where.json"
    where.write_text(json.dumps({"keyword_match": {"must": {"country": "DE"}}}))
    target = tmp_path / "out.csv.gz"

    chosen = ["--where", f"@{where}", "--columns", "name,id", "--order-by", "id:desc"]
    result = haulier("export", "--table", "people", *chosen, "--gzip", "-o", str(target), "--json")

    assert result.exit_code == 0
    assert gzip.decompress(target.read_bytes()) == b"name,id\nEve,3\nAnn,1\n"
    assert json.loads(result.stdout)["file"]["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_query_answers_at_once_explains_itself_or_becomes_a_job(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    haulier("import", _csv(tmp_path, ["1,Ann,DE", "2,Bob,FR", "3,Eve,DE"]), "--table", "people")
    target = tmp_path / "out.csv"
    chosen = ["--table", "people", "--where", '{"keyword_match": {"must": {"country": "DE"}}}', "--columns", "name,id"]

    written = haulier("query", *chosen, "--format", "csv", "--mode", "stream", "-o", str(target))
    explained = haulier("query", *chosen, "--explain")
    deferred = haulier("query", *chosen, "--mode", "job", "--json")

    assert {result.exit_code for result in (written, explained, deferred)} == {0}
    assert target.read_bytes() == b"name,id\nAnn,1\nEve,3\n"
    assert "becomes a job" in explained.stdout
    assert "Seq Scan" in explained.stdout
    assert json.loads(deferred.stdout)["reason"] == "asked"


def test_an_empty_export_is_a_file_with_a_header(haulier: Callable[..., Result], people: None, tmp_path: Path) -> None:
    result = haulier("export", "--table", "people", "-o", str(tmp_path / "out.csv"))

    assert result.exit_code == 0
    assert (tmp_path / "out.csv").read_text() == "id,name,country\n"


def test_a_file_over_100_mb_goes_in_parts_and_arrives_whole(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "big.csv"
    with file.open("wb") as sink:
        sink.truncate(101 * 10**6)
    client = Client(stack.url, stack.admin_key)

    ticket = upload(client, file, quiet=True)
    arrived = client.get(f"/v1/uploads/{ticket['id']}")

    assert len(ticket["parts"]) > 1
    assert (arrived["arrived"], arrived["size_bytes"], arrived["in_parts"]) == (True, 101 * 10**6, True)


def test_an_empty_file_is_sent_and_refused_by_the_job(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    file = tmp_path / "empty.csv"
    file.touch()

    result = haulier("import", str(file), "--table", "people")

    assert result.exit_code in (0, 1)
    assert "empty" in result.output or "header" in result.output or "0 read" in result.output


@pytest.mark.parametrize(
    ("job", "exit_code", "says"),
    [
        ({"type": "echo", "config": {"value": 1}}, 0, ""),
        ({"type": "fail", "config": {"message": "on purpose"}, "retry": {"maximum_attempts": 1}}, 1, "on purpose"),
    ],
)
def test_watching_a_job_tells_how_it_ended(
    haulier: Callable[..., Result], stack: Stack, job: dict[str, Any], exit_code: int, says: str
) -> None:
    job_id = Client(stack.url, stack.admin_key).post("/v1/jobs", job)["id"]

    result = haulier("jobs", "watch", job_id)

    assert result.exit_code == exit_code
    assert says in result.stderr


def test_a_running_job_is_cancelled_opened_again_and_cloned(haulier: Callable[..., Result], stack: Stack) -> None:
    client = Client(stack.url, stack.admin_key)
    job_id = client.post(
        "/v1/jobs", {"type": "sleep", "config": {"seconds": 0.1}, "run_after": "2999-01-01T00:00:00Z"}
    )["id"]

    cancelled = haulier("jobs", "cancel", job_id)
    watched = haulier("jobs", "watch", job_id)
    again = haulier("jobs", "cancel", job_id)
    retried = haulier("jobs", "retry", job_id)
    ended = haulier("jobs", "watch", job_id, "--json")
    cloned = haulier("jobs", "clone", job_id, "--watch", "--json")

    assert [result.exit_code for result in (cancelled, watched, again, retried, ended, cloned)] == [0, 4, 1, 0, 0, 0]
    assert "job.ended" in again.stderr
    assert json.loads(ended.stdout)["state"] == "completed"
    assert json.loads(cloned.stdout)["clone_of"] == job_id


def test_jobs_are_listed_and_shown(haulier: Callable[..., Result], stack: Stack) -> None:
    labelled = {"type": "echo", "labels": {"run": "listed"}}
    job_id = Client(stack.url, stack.admin_key).post("/v1/jobs?wait=10", labelled)["id"]

    listed = haulier("jobs", "list", "--label", "run=listed", "--state", "completed", "--json")
    table = haulier("jobs", "list", "--label", "run=listed")
    shown = haulier("jobs", "get", job_id)

    assert [job["id"] for job in json.loads(listed.stdout)] == [job_id]
    assert table.stdout.splitlines()[0].split() == ["id", "type", "state", "outcome", "rows", "created"]
    assert len(table.stdout.splitlines()) == 2
    assert "state     completed" in shown.stdout


def test_failed_rows_are_shown_and_written_to_a_file(
    haulier: Callable[..., Result], people: None, tmp_path: Path
) -> None:
    file = _csv(tmp_path, ["1,Ann,DE", "x,\x1b[31mred,FR", "y,Eve,FR"])
    job_id = json.loads(haulier("import", file, "--table", "people", "--json").stdout)["id"]
    target = tmp_path / "failed.csv"

    shown = haulier("jobs", "failed-rows", job_id, "--limit", "1")
    as_json = haulier("jobs", "failed-rows", job_id, "--json")
    written = haulier("jobs", "failed-rows", job_id, "--csv", str(target))

    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert "\x1b" not in shown.stdout
    assert [row["line"] for row in json.loads(as_json.stdout)] == [3, 4]
    assert len(target.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "says"),
    [
        (["jobs", "get", NO_SUCH_ID], {}, 5, "job.not_found: there is no job"),
        (["tables", "show", "nothing"], {}, 5, "table.not_found"),
        (["jobs", "get", "nonsense"], {}, 2, "is not a valid UUID"),
        (["jobs", "list"], {"HAULIER_API_KEY": "wrong"}, 6, "hint: Send a valid key"),
        (["jobs", "list"], {"HAULIER_URL": "http://127.0.0.1:9"}, 7, "Is it running ('haulier up')"),
        (["jobs", "list", "--data", "/nothing/here"], {}, 2, "Start it with 'haulier up --data /nothing/here'"),
        (["export", "--table", "contacts", "--where", "{", "-o", "x"], {}, 2, "expected JSON such as"),
        (
            ["export", "--table", "contacts", "--where", '{"keyword_match": {"must": {"nope": 1}}}', "-o", "/tmp/x"],
            {},
            2,
            "/config/vql/where/keyword_match/must/nope: ",
        ),
    ],
)
def test_a_failure_says_what_is_wrong_and_what_to_do(
    haulier: Callable[..., Result], arguments: list[str], environment: dict[str, str], exit_code: int, says: str
) -> None:
    result = haulier(*arguments, **environment)

    assert result.exit_code == exit_code
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failure_is_a_document_when_json_is_asked_for(haulier: Callable[..., Result]) -> None:
    result = haulier("jobs", "get", NO_SUCH_ID, "--json")

    assert result.exit_code == 5
    assert json.loads(result.stdout)["error"]["code"] == "job.not_found"


def test_without_an_address_the_running_stack_of_a_folder_is_used(
    haulier: Callable[..., Result], stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nothing: dict[str, str | None] = {"HAULIER_URL": None, "HAULIER_API_KEY": None}

    unknown = haulier("tables", "list", **nothing)
    by_data = haulier("tables", "list", "--data", str(stack.data_dir), **nothing)
    (tmp_path / "var").symlink_to(stack.data_dir)
    by_default = haulier("tables", "list", **nothing)

    assert [result.exit_code for result in (unknown, by_data, by_default)] == [2, 0, 0]
    assert "haulier up" in unknown.stderr


@pytest.mark.feature("S4-58")
def test_keys_are_made_on_the_database_and_work_at_once(
    haulier: Callable[..., Result], stack: Stack, stack_sessions: Sessions
) -> None:
    with_database = {"HAULIER_DATABASE_URL": stack.stores.database_url}

    made = haulier("keys", "create", "--tenant", "acme", "--role", "member", "--json", **with_database)
    key = json.loads(made.stdout)
    other = haulier("keys", "create", "--tenant", "acme", "--role", "admin", "--data", str(stack.data_dir))
    works = haulier("jobs", "list", HAULIER_API_KEY=key["key"])
    listed = haulier("keys", "list", "--tenant", "acme", "--json", **with_database)
    revoked = haulier("keys", "revoke", key["id"], "--tenant", "acme", **with_database)

    assert [result.exit_code for result in (made, other, works, listed, revoked)] == [0] * 5
    assert {record["id"] for record in json.loads(listed.stdout)} >= {key["id"]}
    assert key["key"] not in listed.stdout
    assert other.stdout.strip().startswith("hk_")
    with stack_sessions.begin() as session:
        stored = session.execute(text("SELECT * FROM api_keys WHERE id = :id"), {"id": key["id"]}).one()
    assert stored.revoked_at is not None
    assert key["key"].encode() not in bytes(stored.secret_hash)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["create", "--tenant", "No Good", "--role", "member"], 2, "a tenant's name is"),
        (["create", "--tenant", "acme", "--role", "king"], 2, "'king' is not one of"),
        (["revoke", "nothing"], 5, "there is no key 'nothing'"),
    ],
)
def test_keys_refuse_what_does_not_fit(
    haulier: Callable[..., Result], stack: Stack, arguments: list[str], exit_code: int, says: str
) -> None:
    result = haulier("keys", *arguments, "--data", str(stack.data_dir))

    assert result.exit_code == exit_code
    assert says in result.stderr


def test_keys_without_a_database_say_what_to_start(haulier: Callable[..., Result]) -> None:
    result = haulier("keys", "list", HAULIER_DATABASE_URL="postgresql://haulier:secret@127.0.0.1:9/haulier")

    assert result.exit_code == 7
    assert "haulier up" in result.stderr
    assert "secret" not in result.stderr


def test_tables_are_listed_shown_and_refused(haulier: Callable[..., Result], people: None, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"name": "x", "columns": [{"name": "id", "type": "int8"}], "key": ["id"]}')

    listed = haulier("tables", "list")
    shown = haulier("tables", "show", "people")
    refused = haulier("tables", "create", str(broken))

    assert "people" in listed.stdout
    assert "rows      0" in shown.stdout
    assert refused.exit_code == 2
    assert "/columns/0/type: Must be one of: text" in refused.stderr


@pytest.mark.feature("S4-81")
def test_settings_are_shown_with_their_sources_and_without_secrets(haulier: Callable[..., Result]) -> None:
    given = {"HAULIER_DATABASE_URL": "postgresql://u:hush@h/d", "PARALLEL_JOBS": "7"}

    shown = haulier("config", "show", **given)
    as_json = {one["name"]: one for one in json.loads(haulier("config", "show", "--json", **given).stdout)}
    wrong = haulier("config", "show", HAULIER_PORT="many")

    assert "hush" not in shown.stdout
    assert as_json["parallel_jobs"]["source"] == "environment PARALLEL_JOBS"
    assert (as_json["parallel_jobs"]["value"], as_json["lanes"]["source"]) == ("7", "default")
    assert (wrong.exit_code, "HAULIER_PORT (environment HAULIER_PORT)" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("engine",), ("keys", "list"), ("db", "upgrade"), ("config", "show")])
def test_a_setting_that_cannot_be_used_ends_a_command_with_a_sentence(arguments: tuple[str, ...]) -> None:
    variables = {**os.environ, "HAULIER_LEASE_S": "soon"}

    ran = subprocess.run([HAULIER, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: settings.invalid: HAULIER_LEASE_S (environment HAULIER_LEASE_S): ")
    assert "Traceback" not in ran.stderr


@pytest.mark.feature("S4-16", "S4-69", "S4-70", "S4-73")
@pytest.mark.parametrize(("command", "queue"), [("first_time", "data"), ("retry", "retry")])
def test_the_two_runners_are_worker_pools(
    stack: Stack, stack_sessions: Sessions, command: str, queue: str, tmp_path: Path
) -> None:
    log = (tmp_path / "log").open("wb")
    variables = {**os.environ, **stack.environment, "HAULIER_PARALLEL_JOBS": "2"}
    runner = subprocess.Popen([HAULIER, "jobs", command], env=variables, stdout=log, stderr=log)
    log.close()
    try:
        slots = _slots_of(stack_sessions, runner.pid, queue, wanted=2 if queue == "data" else 1)
    finally:
        runner.send_signal(signal.SIGTERM)
        ended = runner.wait(60)

    assert slots == (2 if queue == "data" else 1)
    assert ended == 0


def _slots_of(sessions: Sessions, pid: int, queue: str, *, wanted: int) -> int:
    """How many slots of a queue the worker with this pid has; waits for as many as are wanted."""
    deadline = time.monotonic() + 60
    found = 0
    while found < wanted and time.monotonic() < deadline:
        with sessions.begin() as session:
            found = session.execute(
                text("SELECT count(*) FROM workers WHERE parent_pid = :pid AND queue = :queue"),
                {"pid": pid, "queue": queue},
            ).scalar_one()
        time.sleep(0.1)
    return found


def test_the_demo_agrees_and_leaves_nothing_behind(tmp_path: Path) -> None:
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    tmp_path.chmod(0o755)

    command = [HAULIER, "demo", "--rows", "4000", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, env=variables, check=False)
    told = json.loads(ran.stdout)

    assert ran.returncode == 0, ran.stderr
    assert told["agrees"]
    assert len(told["checks"]) == 6
    assert [path for path in tmp_path.iterdir() if path.name.startswith("haulier-demo-")] == []


def test_a_demo_whose_figures_differ_says_so(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module.witness, "count_in_countries", lambda *_: 1)
    story = demo_module.Demo(tmp_path, rows=1_000, quiet=False)

    story.tell(stack)

    assert not story.agrees
    assert [what for what, expected, found in story.checks if expected != found] == [
        "rows exported = rows counted by SQL"
    ]
    assert "DIFFERS: 1 against" in capsys.readouterr().out
