"""Processes are told apart by number and start time; ports are claimed between copies; secrets are private."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime import ports, processes
from app.runtime.errors import RuntimeStateError
from app.runtime.stack_secrets import load_or_make


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, processes.MARK: processes.mark(tmp_path, "run")}
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path, env=environment) as started:
        yield started
        started.kill()


def _known(pid: int) -> processes.Process:
    found = processes.process(pid)
    assert found is not None
    return found


def test_a_number_used_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    known = _known(sleeper.pid)
    earlier = processes.Process(known.pid, known.started_ticks - 1)

    processes.end([earlier], by=signal.SIGKILL, grace_s=0.2)

    assert not earlier.is_alive()
    assert known.is_alive()


def test_an_ended_process_that_its_parent_has_not_asked_about_counts_as_gone(sleeper: subprocess.Popen[bytes]) -> None:
    known = _known(sleeper.pid)

    processes.end([known], grace_s=5)

    assert not known.is_alive()
    assert processes.process(sleeper.pid) is None


def test_a_stack_s_processes_are_found_by_their_mark_alone(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    known = _known(sleeper.pid)

    assert processes.of_data_dir(tmp_path) == [known]
    assert processes.marked(processes.mark(tmp_path, "run")) == [known]
    assert processes.marked(processes.mark(tmp_path, "another-run")) == []
    assert processes.of_data_dir(tmp_path.parent) == []
    assert processes.of_data_dir(tmp_path.with_name(tmp_path.name + "#run")) == []


def test_a_shell_in_a_store_s_folder_is_not_taken_for_the_store(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert processes.servers_in(tmp_path) == []


def test_a_port_in_use_is_not_chosen() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        taken = server.getsockname()[1]

        chosen = ports.block(taken, 1)

    assert chosen[0] != taken
    ports.release(chosen)


def test_a_port_that_another_copy_has_claimed_is_not_chosen() -> None:
    port = ports.free_port()
    ask = f"from app.runtime import ports; print(ports.claim({port}))"

    while_claimed = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    ports.release([port])
    afterwards = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout

    assert (while_claimed.strip(), afterwards.strip()) == ("False", "True")


def test_a_block_of_free_ports_is_in_a_row() -> None:
    first = next(port for port in range(40_000, 60_000, 10) if all(ports.is_free(port + n) for n in range(5)))

    chosen = ports.block(first, 5)

    assert chosen == list(range(first, first + 5))
    ports.release(chosen)


def test_secrets_are_made_once_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    made = load_or_make(tmp_path / "secrets.json")

    again = load_or_make(tmp_path / "secrets.json")

    assert again == made
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len({value for value in vars_of(made) if value}) == 7


def vars_of(made: object) -> list[str | None]:
    return [getattr(made, name) for name in made.__dataclass_fields__]  # type: ignore[attr-defined] # a dataclass


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps({"instance": "x", "colour": "red"})])
def test_a_damaged_secrets_file_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(text)

    with pytest.raises(RuntimeStateError, match=r"secrets\.json should hold the secrets"):
        load_or_make(file)

    assert file.read_text() == text
