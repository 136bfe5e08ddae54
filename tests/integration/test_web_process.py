"""``haulier web`` from outside: its processes come back, and go with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from app.runtime import processes
from app.runtime.ports import free_port, release
from app.runtime.stores import Stores
from config.settings import Settings


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    yield number
    release([number])


@pytest.fixture
def web(stores: Stores, settings: Settings, port: int) -> Iterator[subprocess.Popen[str]]:
    """The server, when it answers."""
    environment = {
        **os.environ,
        "HAULIER_DATABASE_URL": stores.database_url,
        "HAULIER_REDIS_URL": stores.redis_url,
        "HAULIER_PORT": str(port),
        "HAULIER_WEB_PROCESSES": "2",
    }
    server = subprocess.Popen(
        [Path(sys.executable).with_name("haulier"), "web"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert _within(60, lambda: _answers(port))
        yield server
    finally:
        server.kill()
        server.communicate()


def _within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v1/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def _children(server: subprocess.Popen[str]) -> list[processes.Process]:
    numbers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [found for number in numbers if (found := processes.process(int(number)))]


def test_a_killed_process_of_the_web_is_replaced(web: subprocess.Popen[str], port: int) -> None:
    before = _children(web)

    before[0].send(signal.SIGKILL)

    assert _within(30, lambda: len(set(_children(web)) - {before[0]}) == len(before) and _answers(port))


def test_the_processes_of_a_killed_web_end_with_it(web: subprocess.Popen[str]) -> None:
    children = _children(web)

    web.kill()

    assert children
    assert _within(15, lambda: not any(child.is_alive() for child in children))


def test_a_web_that_is_told_to_stop_ends_at_once_and_in_good_order(web: subprocess.Popen[str]) -> None:
    web.terminate()

    _, said = web.communicate(timeout=30)

    assert (web.returncode, said) == (0, "")


def test_a_second_web_on_a_port_in_use_says_so_instead_of_sharing_it(web: subprocess.Popen[str], port: int) -> None:
    second = subprocess.run(
        [Path(sys.executable).with_name("haulier"), "web"],
        env={**os.environ, "HAULIER_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert second.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in second.stderr
