"""Batches: many payloads as one job, a window of them at work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.errors import ConflictError, InvalidRequestError, TransientError
from app.domain.families import Counts, OnFailure
from app.domain.jobs import Job, Outcome, Priority
from app.domain.lifecycle import JobState
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.families import Payload, SubmitBatch
from tests.integration.families import Installation


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


def payloads(count: int) -> list[Payload]:
    return [Payload("echo", {"value": number}) for number in range(count)]


def a_batch(here: Installation, count: int = 12, **changes: Any) -> Job:
    request = {"tenant": "default", "payloads": payloads(count), "created_by": "test", **changes}
    return here.families.create_batch(SubmitBatch(**request)).job


@pytest.mark.feature("S3-09", "S3-30")
def test_no_more_than_the_window_are_at_work_and_all_complete(here: Installation) -> None:
    batch = a_batch(here, 12, max_concurrency=5)

    sizes = here.work_off()

    assert sizes == [5, 5, 2]
    ended = here.jobs.get("default", batch.id)
    assert (ended.state, ended.outcome) == (JobState.COMPLETED, Outcome.SUCCESS)
    assert here.families.counts("default", batch.id) == Counts(12, 0, 12, 0, 0)


def test_the_first_payloads_need_no_step_of_the_engine_to_be_let_in(here: Installation) -> None:
    batch = a_batch(here, 5, max_concurrency=3)

    children = here.families.children("default", batch.id, after=-1, limit=10)

    assert [child.state for child in children] == [JobState.QUEUED] * 3 + [JobState.BLOCKED] * 2


def test_payloads_of_a_batch_that_waits_wait_too(here: Installation) -> None:
    first = a_batch(here, 1)
    later = datetime.now(UTC) + timedelta(hours=1)

    batches = [a_batch(here, 2, depends_on=(first.id,)), a_batch(here, 2, run_after=later)]

    for batch in batches:
        children = here.families.children("default", batch.id, after=-1, limit=10)
        assert [child.state for child in children] == [JobState.BLOCKED] * 2


def test_payloads_that_are_over_before_their_batch_begins_are_counted(here: Installation) -> None:
    batch = a_batch(here, 3, max_concurrency=2)
    with here.sessions.begin() as session:
        admission.admit(session, "small", Priority.NORMAL, bound=10)
    here.finish(*here.claim())

    sizes = here.work_off()

    assert sizes == [1]
    assert here.jobs.get("default", batch.id).outcome is Outcome.SUCCESS
    assert here.families.counts("default", batch.id) == Counts(3, 0, 3, 0, 0)


def test_a_batch_that_is_paused_before_it_begins_starts_nothing(here: Installation) -> None:
    batch = a_batch(here, 3, max_concurrency=2)

    here.control.pause("default", batch.id, actor="test")
    held = here.work_off()
    here.control.resume("default", batch.id, actor="test")

    assert (held, here.work_off()) == ([], [2, 1])
    assert here.state(batch.id) is JobState.COMPLETED


def test_payloads_start_in_their_order(here: Installation) -> None:
    a_batch(here, 6, max_concurrency=2)

    seen = []
    for _ in range(3):
        here.tick()
        claimed = here.claim()
        seen += [job.child_no for job in sorted(claimed, key=lambda job: job.child_no or 0)]
        here.finish(*claimed)

    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.feature("S3-09")
def test_counts_tell_where_every_payload_is(here: Installation) -> None:
    batch = a_batch(here, 10, max_concurrency=4)
    here.tick()
    one, two, *_ = here.claim()
    here.finish(one)
    here.fail(two)
    here.tick()

    counts = here.families.counts("default", batch.id)

    assert (counts.total, counts.pending, counts.running, counts.completed, counts.failed) == (10, 6, 2, 1, 1)


@pytest.mark.parametrize(
    ("on_failure", "state", "outcome"),
    [(OnFailure.CONTINUE, JobState.COMPLETED, Outcome.PARTIAL), (OnFailure.STOP, JobState.FAILED, None)],
)
def test_one_failure_makes_a_batch_partial_or_stops_it(
    here: Installation, on_failure: OnFailure, state: JobState, outcome: Outcome | None
) -> None:
    batch = a_batch(here, 6, max_concurrency=2, on_failure=on_failure)
    here.tick()
    one, two = here.claim()
    here.fail(one)
    here.finish(two)

    here.work_off()

    ended = here.jobs.get("default", batch.id)
    assert (ended.state, ended.outcome) == (state, outcome)


def test_a_batch_of_failures_fails_and_an_empty_one_is_empty(here: Installation) -> None:
    failing, empty = a_batch(here, 2), a_batch(here, 0)
    here.tick()
    here.fail(*here.claim())
    here.tick()

    assert here.state(failing.id) is JobState.FAILED
    assert here.jobs.get("default", empty.id).outcome is Outcome.EMPTY


def test_cancelling_a_batch_ends_what_waits_and_asks_what_runs(here: Installation) -> None:
    batch = a_batch(here, 2_500, max_concurrency=3)
    here.tick()
    running = here.claim()

    here.control.cancel("default", batch.id, actor="test")

    children = here.families.children("default", batch.id, after=-1, limit=10_000)
    assert here.state(batch.id) is JobState.CANCELLED
    assert {job.state for job in children if job.id not in {one.id for one in running}} == {JobState.CANCELLED}
    assert all(here.jobs.get("default", job.id).cancel_requested for job in running)


def test_a_payload_that_was_asked_to_stop_is_not_tried_again(here: Installation) -> None:
    batch = a_batch(here, 1)
    here.tick()
    (held,) = here.claim()
    here.control.cancel("default", batch.id, actor="test")

    waited_s = here.runs.retry(held, TransientError("not now"))

    child = here.jobs.get("default", held.id)
    assert (waited_s, child.state, child.cancel_reason) == (None, JobState.CANCELLED, "parent")


def test_a_paused_batch_starts_nothing_until_it_is_resumed(here: Installation) -> None:
    batch = a_batch(here, 6, max_concurrency=2)
    here.tick()
    one, *_ = here.claim(most=1)

    here.control.pause("default", batch.id, actor="test")
    here.finish(one)
    here.tick()
    while_paused = here.claim()
    here.control.resume("default", batch.id, actor="test")
    here.work_off()

    assert while_paused == []
    assert here.state(batch.id) is JobState.COMPLETED


def test_a_batch_takes_more_payloads_until_it_is_over(here: Installation) -> None:
    batch = a_batch(here, 2, max_concurrency=2)
    here.tick()
    claimed = here.claim()

    total = here.families.extend("default", batch.id, payloads(3))
    here.finish(*claimed)
    here.work_off()

    assert total == 5
    assert here.families.counts("default", batch.id).completed == 5
    with pytest.raises(ConflictError):
        here.families.extend("default", batch.id, payloads(1))


def test_a_batch_with_one_bad_payload_is_refused_whole(here: Installation) -> None:
    good, bad = Payload("echo", {}), Payload("nothing_such", {})

    with pytest.raises(InvalidRequestError) as raised:
        here.families.create_batch(SubmitBatch("default", [good, bad], "test"))

    assert [problem.pointer for problem in raised.value.problems] == ["/payloads/1/type"]
    assert here.sequence() == []


def test_a_batch_whose_time_is_over_is_cancelled_with_its_payloads(here: Installation) -> None:
    batch = a_batch(here, 3, timeout_s=0.01)

    here.tick()
    here.tick()

    ended = here.jobs.get("default", batch.id)
    assert (ended.state, ended.cancel_reason) == (JobState.CANCELLED, "timeout")
    assert here.claim() == []


def test_two_batches_keep_their_own_windows(here: Installation) -> None:
    a_batch(here, 5, max_concurrency=2)
    a_batch(here, 5, max_concurrency=3)

    assert here.work_off() == [5, 4, 1]
