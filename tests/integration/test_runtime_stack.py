"""``haulier up`` from outside: everything runs, everything stops, and a kill of anything is no harm."""

from __future__ import annotations

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
import requests
from sqlalchemy import text

from app.persistence.sessions import open_engine
from app.runtime import processes
from app.runtime.errors import RuntimeStateError
from app.runtime.stack import Stack, down, owner, take_lock
from app.runtime.stores import Stores
from app.runtime.supervisor import procfile

_HAULIER = Path(sys.executable).with_name("haulier")
_NAMES = {program.name for program in procfile()}
_STORES = {"postgres", "valkey", "objects"}

_FEW = {"engine", "small"}
_STARTER = """
import sys, time
from pathlib import Path
from app.runtime.stack import Stack

stack = Stack(Path(sys.argv[1]), port=24_000, processes=["engine", "small"])
stack.start()
print("up", flush=True)
time.sleep(600)
"""


def _within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def _haulier(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_HAULIER, *arguments], capture_output=True, text=True, timeout=150, check=False)


def _started_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    """A process that runs a small stack on ``data_dir``."""
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(data_dir)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        assert starter.stdout.readline() == "up\n"
    return starter


def _keys_in(database_url: str) -> int:
    engine = open_engine(database_url, application_name="tests", pool_size=1)
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM api_keys")).scalar_one()
    engine.dispose()
    return count


def _state(data_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((data_dir / "up.json").read_text())
    return state


def _everything_of(data_dir: Path) -> list[processes.Process]:
    servers = [one for folder in Stores(data_dir).folders() for one in processes.servers_in(folder)]
    runner = owner(data_dir)
    return [*([runner] if runner else []), *processes.of_data_dir(data_dir), *servers]


@pytest.fixture
def data_dir(data_dir: Path) -> Iterator[Path]:
    """A data directory whose stack, if a failed test leaves one, is stopped."""
    yield data_dir
    down(data_dir, timeout_s=10)


def test_up_runs_everything_restarts_what_dies_and_down_leaves_nothing(data_dir: Path) -> None:
    started = _haulier("up", "--data", str(data_dir), "--detach", "--json")
    assert started.returncode == 0, started.stderr
    state = json.loads(started.stdout)
    health = requests.get(f"{state['url']}/v1/health", timeout=10)
    worker = state["pids"]["worker"]

    os.kill(worker, signal.SIGKILL)
    replaced = _within(10, lambda: _state(data_dir)["pids"].get("worker", worker) != worker)
    others_stayed = {name: pid for name, pid in _state(data_dir)["pids"].items() if name != "worker"}
    running = _everything_of(data_dir)
    stopped = _haulier("down", "--data", str(data_dir))

    assert set(state["pids"]) == _NAMES | _STORES
    assert health.status_code == 200
    assert replaced
    assert others_stayed == {name: pid for name, pid in state["pids"].items() if name != "worker"}
    assert stopped.returncode == 0
    assert "Stopped" in stopped.stdout
    assert not any(one.is_alive() for one in running)
    assert _everything_of(data_dir) == []
    assert not (data_dir / "up.json").exists()


def test_ctrl_c_stops_everything_and_the_next_start_finds_key_and_data(data_dir: Path) -> None:
    with subprocess.Popen(
        [_HAULIER, "up", "--data", str(data_dir), "--no-flower"], stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        shown = ""
        while "Ctrl-C stops it" not in shown:
            line = up.stdout.readline()
            assert line, f"ended early: {shown}"
            shown += line
        state = _state(data_dir)
        answer = requests.get(f"{state['url']}/v1/jobs", headers={"X-API-Key": state["key"]}, timeout=10)
        up.send_signal(signal.SIGINT)
        up.stdout.read()
        code = up.wait(timeout=60)
    left = _everything_of(data_dir)
    starter = _started_elsewhere(data_dir)
    again = _state(data_dir)
    keys = _keys_in(again["database_url"])
    starter.terminate()
    starter.wait()

    assert state["key"] in shown
    assert set(state["pids"]) == (_NAMES | _STORES) - {"flower"}
    assert answer.status_code == 200
    assert code == 0
    assert left == []
    assert (again["key"], keys) == (state["key"], 1)


def test_a_killed_supervisor_takes_everything_along(data_dir: Path) -> None:
    starter = _started_elsewhere(data_dir)
    running = _everything_of(data_dir)

    starter.kill()
    starter.wait()

    assert len(running) > len(_FEW | _STORES)
    assert _within(30, lambda: not any(one.is_alive() for one in running))


def test_a_stack_starts_again_twice_after_a_kill_of_everything(data_dir: Path) -> None:
    known = []

    for _ in range(3):
        starter = _started_elsewhere(data_dir)
        state = _state(data_dir)
        known.append((state["key"], _keys_in(state["database_url"])))
        running = _everything_of(data_dir)
        for one in running:
            one.send(signal.SIGKILL)
        starter.wait()

    assert known == [known[0]] * 3
    assert known[0][1] == 1
    assert _within(10, lambda: not any(one.is_alive() for one in running))


def test_what_a_kill_of_supervisor_and_reaper_left_is_ended_by_down(data_dir: Path) -> None:
    starter = _started_elsewhere(data_dir)
    running = _everything_of(data_dir)
    for one in processes.marked(processes.mark(data_dir, "reaper")):
        one.send(signal.SIGKILL)
    starter.kill()
    starter.wait()
    survivors = [one for one in running if one.is_alive()]

    stopped = _haulier("down", "--data", str(data_dir), "--json")

    assert len(survivors) > len(_FEW | _STORES)
    assert json.loads(stopped.stdout)["stopped"] is True
    assert not any(one.is_alive() for one in running)


def test_down_on_a_stopped_stack_leaves_the_process_alone_that_ran_it(data_dir: Path) -> None:
    stack = Stack(data_dir, port=23_000, processes=["engine"], postgres_settings={"shared_buffers": "128MB"})
    stack.start()
    stack.stop()

    stopped = down(data_dir)

    assert not stopped
    assert owner(data_dir) is None


def test_a_data_directory_in_use_is_refused_and_the_first_stack_keeps_running(data_dir: Path) -> None:
    stack = Stack(data_dir, port=20_000, processes=["engine"], postgres_settings={"shared_buffers": "128MB"})
    stack.start()
    pids = stack.pids()

    with pytest.raises(RuntimeStateError, match=f"already runs on .* \\(process {os.getpid()}\\)"):
        Stack(data_dir).start()
    second = _haulier("up", "--data", str(data_dir), "--detach")
    after = stack.pids()
    stack.stop()

    assert second.returncode == 1
    assert "haulier down" in second.stderr
    assert after == pids
    assert set(pids) == {"engine"} | _STORES


def test_two_stacks_with_the_same_first_port_run_side_by_side(data_dir: Path, tmp_path: Path) -> None:
    settings = {"shared_buffers": "128MB"}
    one = Stack(data_dir, port=21_000, processes=["engine"], postgres_settings=settings)
    other = Stack(tmp_path / "other", port=21_000, processes=["engine"], postgres_settings=settings)

    one.start()
    other.start()
    addresses = (one.url, other.url)
    running = (set(one.pids()), set(other.pids()))
    other.remove()
    one.stop()

    assert addresses[0] != addresses[1]
    assert running == ({"engine"} | _STORES, {"engine"} | _STORES)
    assert not (tmp_path / "other").exists()


def test_a_stack_that_cannot_start_leaves_nothing_running_and_can_be_started_later(data_dir: Path) -> None:
    stack = Stack(data_dir, port=22_000, processes=["engine"], postgres_settings={"shared_buffers": "much"})

    with pytest.raises(Exception, match="shared_buffers"):
        stack.start()
    left = _everything_of(data_dir)
    lock = take_lock(data_dir)

    assert left == []
    assert lock is not None
    lock.close()


def test_unknown_processes_are_refused_by_name(data_dir: Path) -> None:
    with pytest.raises(RuntimeStateError, match="got wbe"):
        Stack(data_dir, processes=["web", "wbe"])


def test_down_where_nothing_runs_says_so(tmp_path: Path) -> None:
    answer = _haulier("down", "--data", str(tmp_path / "nowhere"))

    assert answer.returncode == 0
    assert "Nothing runs" in answer.stdout
    assert not (tmp_path / "nowhere").exists()
