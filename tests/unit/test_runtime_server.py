"""What every embedded server does alike: it answers or it is stopped, and its log tells why."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.runtime import ports, server
from app.runtime.errors import RuntimeStateError, StoreStartError
from app.runtime.objects import Objects
from app.runtime.server import Server
from app.runtime.valkey import Valkey


class Script(Server):
    """A shell script as a server; it answers when it has made the file ``up``."""

    name = "Script"
    stop_grace_s = 0.3

    def __init__(self, folder: Path, script: str, *, start_timeout_s: float = 10.0) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, folder / "logs" / "log", start_timeout_s=start_timeout_s)
        self.script = script
        self.starts = 0

    def prepare(self) -> None:
        (self.folder / "up").unlink(missing_ok=True)
        self.starts += 1

    def command(self) -> Sequence[str]:
        return ["/bin/sh", "-c", self.script]

    def answers(self) -> bool:
        return (self.folder / "up").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "server"


def test_a_server_that_ends_while_it_starts_is_told_with_its_last_words(folder: Path) -> None:
    silent = Script(folder, "echo the disk is full; exit 3")

    with pytest.raises(StoreStartError, match="Script ended with code 3 while starting") as ended:
        silent.start()

    assert "the disk is full" in ended.value.detail
    assert not silent.is_running()


def test_a_server_that_stays_silent_is_stopped_and_said_to_have_been(folder: Path) -> None:
    silent = Script(folder, "exec sleep 60", start_timeout_s=0.1)

    with pytest.raises(StoreStartError, match=r"did not answer within 0\.1 s") as ended:
        silent.start()

    assert "(nothing)" in ended.value.detail
    assert not silent.is_running()


def test_a_server_that_runs_is_not_started_again(folder: Path) -> None:
    running = Script(folder, "touch up; exec sleep 60")
    running.start()
    first = running.pid

    running.start()

    assert (running.pid, running.starts) == (first, 1)
    running.stop()
    running.stop()


def test_a_server_that_ignores_the_request_to_stop_is_killed_after_the_grace(folder: Path) -> None:
    stubborn = Script(folder, "trap '' TERM; touch up; while :; do sleep 0.1; done")
    stubborn.start()

    stubborn.stop()

    assert not stubborn.is_running()
    assert stubborn._process is not None
    assert stubborn._process.returncode == -signal.SIGKILL


def test_a_server_that_was_never_started_has_no_process(folder: Path) -> None:
    never = Script(folder, "true")

    with pytest.raises(RuntimeStateError, match="Script has not been started"):
        _ = never.pid

    never.stop()
    never.kill()


def test_a_long_log_is_set_aside_at_the_next_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LOG_LIMIT_BYTES", 10)
    noisy = Script(folder, "echo more than ten bytes; touch up; exec sleep 60")
    noisy.start()
    noisy.stop()

    noisy.start()
    noisy.stop()

    assert noisy.log_file.with_name("log.1").read_text() == "more than ten bytes\n"
    assert noisy.log_file.read_text() == "more than ten bytes\n"


def test_servers_that_do_not_run_do_not_answer(tmp_path: Path) -> None:
    port = ports.free_port()
    valkey = Valkey(tmp_path / "valkey", tmp_path / "log", port=port, password="p")
    objects = Objects(tmp_path / "objects", tmp_path / "log", port=port, access_key_id="a", secret_access_key="s")

    answers = (valkey.answers(), objects.answers())

    ports.release([port])
    assert answers == (False, False)


def test_what_an_upload_that_was_cut_off_left_is_removed_before_the_next_start(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects", tmp_path / "log", port=1, access_key_id="a", secret_access_key="s")
    (tmp_path / "objects" / "bucket").mkdir(parents=True)
    (tmp_path / "objects" / "bucket" / ".tmp.x").touch()
    (tmp_path / "objects" / "bucket" / "kept.csv").touch()

    objects.prepare()

    assert [path.name for path in (tmp_path / "objects" / "bucket").iterdir()] == ["kept.csv"]
