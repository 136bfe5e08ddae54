"""How a job is asked to stop, and what its context has before it is asked for."""

from __future__ import annotations

from threading import Timer
from time import monotonic
from typing import Any

import pytest

from app.domain.clock import SystemClock
from app.domain.errors import FenceLost, JobCancelled
from tasks.context import RunContext
from tests.factories import a_job, in_threads

_LONG_S = 30.0


def a_context(**changes: Any) -> RunContext:
    unasked: Any = None
    return RunContext(a_job(**changes), settings=unasked, sessions=unasked, objects=unasked, clock=SystemClock())


def test_every_thread_that_waits_is_woken_by_a_stop() -> None:
    context = a_context()

    def waits() -> bool:
        with pytest.raises(JobCancelled):
            context.wait(_LONG_S)
        return context.cancelled

    Timer(0.05, context.stop, [JobCancelled("user")]).start()
    start = monotonic()

    assert in_threads(4, waits) == [True] * 4
    assert monotonic() - start < _LONG_S / 2


def test_a_job_that_was_stopped_before_does_not_wait() -> None:
    context = a_context()
    context.stop(JobCancelled("user"))
    start = monotonic()

    with pytest.raises(JobCancelled):
        context.wait(_LONG_S)

    assert monotonic() - start < _LONG_S / 2


def test_a_wait_that_nobody_ends_takes_its_time() -> None:
    context = a_context()

    context.wait(0.001)

    assert not context.cancelled


def test_the_first_reason_stays_unless_the_fence_is_lost() -> None:
    context = a_context()

    for why in (JobCancelled("user"), JobCancelled("timeout"), FenceLost("gone")):
        context.stop(why)

    with pytest.raises(FenceLost):
        context.check()


def test_a_run_that_reports_nothing_writes_nothing_and_tells_what_earlier_runs_refused() -> None:
    context = a_context(error_count=3)

    context.flush()

    assert (context.refused, context.given, context.spent) == (3, (), None)
