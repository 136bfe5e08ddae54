"""The supervisor keeps programs running, and nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.runtime import processes
from app.runtime.errors import RuntimeStateError
from app.runtime.supervisor import Program, Supervisor, back_off_s, procfile, read_procfile


class _Lines:
    """Collects what the programs print."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self.all.append((name, line))

    def of(self, name: str) -> list[str]:
        with self._lock:
            return [line for from_name, line in self.all if from_name == name]


def _within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def lines() -> _Lines:
    return _Lines()


@pytest.fixture
def supervise(tmp_path: Path, lines: _Lines) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def start(**commands: str) -> Supervisor:
        programs = [Program(name, command) for name, command in commands.items()]
        supervisor = Supervisor(programs, {"PATH": os.environ["PATH"], "WHO": "me"}, tmp_path / "logs", echo=lines)
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop(grace_s=0.2)


def test_the_procfile_names_every_process_of_haulier() -> None:
    names = [program.name for program in procfile()]

    assert names == ["web", "engine", "worker", "small", "http", "retry", "beat", "flower"]


def test_the_procfile_in_the_root_is_the_one_that_is_installed() -> None:
    root = Path(__file__).parents[2] / "Procfile"

    assert read_procfile(root.read_text()) == procfile()


def test_blank_lines_and_comments_of_a_procfile_are_skipped() -> None:
    assert read_procfile("# what runs\n\nweb: serve  --port 1\n") == [Program("web", "serve  --port 1")]


@pytest.mark.parametrize("text", ["just words", "web:", "web: a\nweb: b"])
def test_a_line_that_is_no_process_or_comes_twice_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(RuntimeStateError, match=f"Procfile line {len(text.splitlines())}: expected 'name: command'"):
        read_procfile(text)


def test_the_pause_before_a_restart_doubles_up_to_ten_seconds() -> None:
    assert [back_off_s(failures) for failures in (1, 2, 3, 4, 5, 6, 500)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_process_that_exits_is_started_again_and_the_others_keep_running(
    supervise: Callable[..., Supervisor], lines: _Lines
) -> None:
    supervisor = supervise(short="sh -c 'echo up; exit 3'", steady="sleep 60")
    steady = supervisor.pids()["steady"]

    assert _within(5, lambda: lines.of("short").count("up") >= 2)

    assert "ended with code 3; starts again in 0.5 s" in lines.of("short")
    assert supervisor.pids()["steady"] == steady
    assert supervisor.restarts()["steady"] == 0


def test_a_killed_process_takes_its_children_along_before_it_is_started_again(
    supervise: Callable[..., Supervisor], lines: _Lines
) -> None:
    supervisor = supervise(worker="sh -c 'sleep 60 & echo $!; wait'")
    assert _within(5, lambda: lines.of("worker"))
    child = int(lines.of("worker")[0])

    os.kill(supervisor.pids()["worker"], signal.SIGKILL)

    assert _within(5, lambda: processes.process(child) is None)
    assert _within(5, lambda: supervisor.restarts()["worker"] == 1)
    assert "ended with signal SIGKILL; starts again in 0.5 s" in lines.of("worker")


def test_output_goes_to_the_terminal_and_to_a_log_line_by_line(
    supervise: Callable[..., Supervisor], lines: _Lines, tmp_path: Path
) -> None:
    supervisor = supervise(web="sh -c 'echo one; echo two >&2; printf three; sleep 60'")
    assert _within(5, lambda: len(lines.of("web")) == 2)

    supervisor.stop(grace_s=1)

    assert lines.of("web") == ["one", "two", "three"]
    assert (tmp_path / "logs" / "web.log").read_text() == "one\ntwo\nthree"


def test_workers_end_before_what_they_need(supervise: Callable[..., Supervisor], lines: _Lines) -> None:
    at_term = "trap 'sleep 0.3; echo over; exit' TERM; echo up; while :; do sleep 0.05; done"
    supervisor = supervise(web=f'sh -c "{at_term}"', worker=f'sh -c "{at_term}"', engine=f'sh -c "{at_term}"')
    assert _within(5, lambda: len(lines.all) == 3)

    supervisor.stop(grace_s=5)

    over = [name for name, line in lines.all if line == "over"]
    assert over[0] == "worker"
    assert sorted(over[1:]) == ["engine", "web"]


def test_a_process_that_ignores_the_request_to_stop_is_killed_after_the_grace(
    supervise: Callable[..., Supervisor], lines: _Lines
) -> None:
    supervisor = supervise(worker="""sh -c 'trap "" TERM; echo up; while :; do sleep 0.1; done'""")
    assert _within(5, lambda: lines.of("worker"))
    pid = supervisor.pids()["worker"]
    began = time.monotonic()

    supervisor.stop(grace_s=0.5)

    assert 0.5 <= time.monotonic() - began < 4
    assert processes.process(pid) is None
    assert supervisor.pids() == {}


def test_hurry_cuts_the_grace_short(supervise: Callable[..., Supervisor], lines: _Lines) -> None:
    supervisor = supervise(worker="""sh -c 'trap "" TERM; echo up; while :; do sleep 0.1; done'""")
    assert _within(5, lambda: lines.of("worker"))
    began = time.monotonic()
    threading.Timer(0.2, supervisor.hurry).start()

    supervisor.stop(grace_s=30)

    assert time.monotonic() - began < 10


def test_processes_get_the_environment_they_were_given_and_our_programs_first(
    supervise: Callable[..., Supervisor], lines: _Lines
) -> None:
    supervise(web="""sh -c 'echo $WHO; echo ${HOME:-nothing}; command -v celery; sleep 60'""")

    assert _within(5, lambda: len(lines.of("web")) == 3)

    assert lines.of("web")[:2] == ["me", "nothing"]
    assert lines.of("web")[2].endswith("/bin/celery")


def test_a_log_that_has_grown_past_its_limit_is_set_aside(tmp_path: Path, lines: _Lines) -> None:
    chatter = Program("web", "sh -c 'for n in 1 2 3 4 5 6; do echo line number $n; done; sleep 60'")
    supervisor = Supervisor([chatter], {"PATH": os.environ["PATH"]}, tmp_path, echo=lines, log_limit_bytes=40)
    supervisor.start()
    assert _within(5, lambda: len(lines.of("web")) == 6)

    supervisor.stop(grace_s=1)

    kept = (tmp_path / "web.log.1").read_text().splitlines()
    assert kept == ["line number 4", "line number 5", "line number 6"]
    assert not (tmp_path / "web.log").exists()


def test_a_process_keeps_talking_when_its_log_cannot_be_written(tmp_path: Path, lines: _Lines) -> None:
    (tmp_path / "web.log").mkdir()
    supervisor = Supervisor(
        [Program("web", "sh -c 'echo one; echo two; sleep 60'")], {"PATH": os.environ["PATH"]}, tmp_path, echo=lines
    )

    supervisor.start()
    heard = _within(5, lambda: lines.of("web") == ["one", "two"])
    supervisor.stop(grace_s=1)

    assert heard


def test_a_program_that_cannot_be_started_just_now_is_tried_again_and_the_others_are_watched(
    supervise: Callable[..., Supervisor], lines: _Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervise(short="sh -c 'echo up; exit 3'", steady="sleep 60")
    assert _within(5, lambda: lines.of("short"))
    popen, refusals = subprocess.Popen, [OSError("no process to be had")]

    def refused_once(*given: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return popen(*given, **named)

    monkeypatch.setattr(subprocess, "Popen", refused_once)

    assert _within(10, lambda: lines.of("short").count("up") >= 2)

    assert "could not be started: no process to be had" in lines.of("short")
    assert "steady" in supervisor.pids()


def test_what_is_done_after_a_restart_happens_after_each(tmp_path: Path) -> None:
    told: list[None] = []
    supervisor = Supervisor(
        [Program("web", "sh -c 'exit 1'")], {"PATH": os.environ["PATH"]}, tmp_path, changed=lambda: told.append(None)
    )
    supervisor.start()

    heard = _within(5, lambda: told)
    supervisor.stop(grace_s=1)

    assert heard
    assert supervisor.restarts()["web"] >= 1
