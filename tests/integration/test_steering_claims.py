"""What a worker may claim: nothing of a paused queue, and no more processors than it has."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from app.domain.lifecycle import JobState
from app.domain.resources import Resources
from app.persistence import queues, workers
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import a_request, a_service, a_slot, in_threads, stored


@pytest.fixture
def four(sessions: Sessions) -> list[UUID]:
    """The slots of one worker."""
    return [a_slot(sessions, "data") for _ in range(4)]


def data_jobs(sessions: Sessions, *cpus_m: int | None) -> list[UUID]:
    with sessions.begin() as session:
        return [stored(session, a_request(resources=Resources(cpu_m=cpu_m))).id for cpu_m in cpus_m]


def claims(sessions: Sessions, slots: list[UUID]) -> list[UUID]:
    """What each slot gets, in turn."""
    runs = Runs(sessions)
    return [job.id for slot in slots for job in runs.claim("data", slot, most=1, oldest=False)]


@pytest.mark.feature("S2-40")
def test_reserved_processors_never_exceed_those_of_a_worker(sessions: Sessions, four: list[UUID]) -> None:
    wide, plain, another, waits = data_jobs(sessions, 2000, None, None, None)

    claimed = claims(sessions, four)

    assert claimed == [wide, plain, another]
    assert a_service(sessions).get("default", waits).state is JobState.QUEUED


def test_a_job_that_does_not_fit_yet_keeps_its_place(sessions: Sessions, four: list[UUID]) -> None:
    _, wide, _ = data_jobs(sessions, 2000, 3000, None)

    claimed = claims(sessions, four)

    assert wide not in claimed
    assert len(claimed) == 1


def test_a_job_that_fits_no_worker_holds_back_nobody(sessions: Sessions, four: list[UUID]) -> None:
    _, fits = data_jobs(sessions, 5000, 4000)

    assert claims(sessions, four) == [fits]


def test_four_slots_that_claim_at_once_share_their_processors(sessions: Sessions, four: list[UUID]) -> None:
    data_jobs(sessions, *[3000] * 8)
    left = iter(list(four))

    claimed = in_threads(4, lambda: claims(sessions, [next(left)]))

    assert sum(map(len, claimed)) == 1


def test_another_worker_has_processors_of_its_own(sessions: Sessions, four: list[UUID]) -> None:
    first, second = data_jobs(sessions, 4000, 1000)
    with sessions.begin() as session:
        other = workers.Slot(uuid4(), "data", "another host", "worker", 1, 1)
        workers.register(session, other, lease_s=60)

    claimed = claims(sessions, [four[0], other.id])

    assert claimed == [first, second]


@pytest.mark.parametrize("queue", ["small", "data"])
def test_nothing_of_a_paused_queue_is_claimed_until_it_is_resumed(sessions: Sessions, queue: str) -> None:
    slot, runs = a_slot(sessions, queue), Runs(sessions)
    with sessions.begin() as session:
        stored(session, a_request(), queue=queue)
        queues.set_paused(session, queue, paused=True)
    before = runs.claim(queue, slot, most=1, oldest=False)
    with sessions.begin() as session:
        queues.set_paused(session, queue, paused=False)

    after = runs.claim(queue, slot, most=1, oldest=False)

    assert (len(before), len(after)) == (0, 1)


def test_a_submit_to_a_paused_queue_does_not_go_straight_to_it(sessions: Sessions) -> None:
    with sessions.begin() as session:
        queues.set_paused(session, "small", paused=True)

    job = a_service(sessions).submit(a_request()).job

    assert job.state is JobState.OPEN
