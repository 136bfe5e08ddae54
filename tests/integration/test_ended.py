"""Ends of jobs are told over Redis, to whoever listens, and a Redis that is away is waited for in silence."""

from __future__ import annotations

import socket
from uuid import uuid4

import pytest
from pydantic import SecretStr

from app.broker.bells import CeleryBell
from app.broker.ended import RedisEnded
from config.settings import Settings


def test_who_listens_hears_which_jobs_ended(settings: Settings) -> None:
    jobs = {uuid4(), uuid4()}
    bell, ended = CeleryBell(settings), RedisEnded(settings)
    before = ended.hear(5)  # from now on

    bell.tell_ended(jobs)
    heard = ended.hear(5)

    bell.close()
    ended.close()
    assert (before, heard) == (set(), jobs)


def test_without_redis_nothing_is_heard_and_one_line_says_so(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = SecretStr(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        ended = RedisEnded(settings.model_copy(update={"redis_url": nobody}))

        heard = [ended.hear(0.01) for _ in range(3)]

    assert heard == [set(), set(), set()]
    assert caplog.messages == ["bell.lost"]
